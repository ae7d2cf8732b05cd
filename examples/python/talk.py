# SPDX-License-Identifier: MIT
"""Processes that talk to each other while they run.

Ranges of numbers go out through one queue, to whoever is free, and the primes in them come back
through another. What goes through a queue arrives as if it had been passed to a function. A lock
lets one process at a time count and print.
"""
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors

BLOCK = 10000


def is_prime(n):
    divisor = 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return n > 1


def find_primes(numbers):
    return [n for n in numbers if is_prime(n)]


def work_for_others(questions, answers, tally, lock):
    name = multiprocessing.current_process().name
    while True:
        numbers = questions.get()
        if numbers is None:
            break
        primes = find_primes(numbers)
        with lock:
            tally.value += len(primes)
            print(f"{name}: {len(primes)} primes from {numbers.start} to {numbers.stop}, "
                  f"all of us {tally.value} so far", flush=True)
        answers.put((numbers, primes))


def ask_others(blocks, helpers):
    questions = multiprocessing.Queue()
    answers = multiprocessing.Queue()
    tally = multiprocessing.Value("i", 0, lock=False)
    lock = multiprocessing.Lock()
    processes = [multiprocessing.Process(target=work_for_others,
                                         args=(questions, answers, tally, lock))
                 for _ in range(helpers)]
    for process in processes:
        process.start()
    for numbers in blocks:
        questions.put(numbers)
    for _ in processes:
        questions.put(None)  # no more will come
    found = dict(answers.get() for _ in blocks)
    for process in processes:
        process.join()
        expect(process.exitcode == 0, f"{process.name} ended with {process.exitcode}")
    return found, tally.value


def main():
    limit, = arguments(__doc__, limit=(500000, "look for primes below this"))
    blocks = [range(first, min(first + BLOCK, limit)) for first in range(0, limit, BLOCK)]

    work = Work()
    expected = {numbers: work.do(find_primes, numbers) for numbers in blocks}

    start = time.monotonic()
    found, tally = ask_others(blocks, processors())
    work.report("talk", time.monotonic() - start, processors())

    expect(found == expected, "the processes and the loop disagree")
    expect(tally == sum(map(len, found.values())), f"the tally is {tally}: the lock didn't hold")


if __name__ == "__main__":
    main()
