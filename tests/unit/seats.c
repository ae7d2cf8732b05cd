/* SPDX-License-Identifier: MIT */
/* Peers as threads or processes, and what tests of processes need: see the header. */
#define _GNU_SOURCE
#include "seats.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "forkguard.h"

#if defined(__SANITIZE_THREAD__)
#define SLOWNESS 4
#elif defined(__SANITIZE_ADDRESS__)
#define SLOWNESS 2
#else
#define SLOWNESS 1
#endif

const char seats_group[1];

static pid_t fork_child(bool by_user)
{
	pid_t parent = getpid();
	pid_t pid;

	fflush(NULL);
	pid = by_user ? fork() : ac__forkguard_fork(seats_group);
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	return 0;
}

static unsigned seat_of(struct seats_peer *peer)
{
	return (unsigned)(peer - peer->seats->peers);
}

static void *run_thread(void *arg)
{
	struct seats_peer *peer = arg;

	peer->result = peer->seats->fn(seat_of(peer), peer->seats->arg);
	return NULL;
}

void seats_restart(struct seats *seats, unsigned seat)
{
	struct seats_peer *peer = &seats->peers[seat];

	peer->seats = seats;
	peer->result = 0;
	peer->runs = true;
	if (seats->kind == SEATS_THREADS) {
		if (pthread_create(&peer->thread, NULL, run_thread, peer))
			abort();
		return;
	}
	peer->pid = fork_child(false);
	if (peer->pid < 0)
		abort();
	if (peer->pid == 0)
		_exit(seats->fn(seat, seats->arg) ? 1 : 0);
}

void seats_start(struct seats *seats, enum seats_kind kind, unsigned count,
		 seat_fn *fn, void *arg)
{
	memset(seats, 0, sizeof *seats);
	seats->kind = kind;
	seats->count = count;
	seats->fn = fn;
	seats->arg = arg;
	for (unsigned seat = 1; seat <= count; seat++)
		seats_restart(seats, seat);
}

static int reap(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool seats_kill(struct seats *seats, unsigned seat)
{
	struct seats_peer *peer = &seats->peers[seat];
	int result;

	if (!peer->runs)
		return false;
	kill(peer->pid, SIGKILL);
	result = reap(peer->pid);
	peer->runs = false;
	if (result == -SIGKILL)
		return true;
	peer->result = result;
	return false;
}

unsigned seats_join(struct seats *seats)
{
	unsigned failed = 0;

	for (unsigned seat = 1; seat <= seats->count; seat++) {
		struct seats_peer *peer = &seats->peers[seat];

		if (peer->runs && seats->kind == SEATS_THREADS)
			pthread_join(peer->thread, NULL);
		else if (peer->runs)
			peer->result = reap(peer->pid);
		peer->runs = false;
		if (peer->result)
			fprintf(stderr, "seat %u: result %d\n", seat, peer->result);
		failed += peer->result != 0;
	}
	return failed;
}

static int run_in_child(int (*fn)(void *arg), void *arg, unsigned seconds, bool by_user)
{
	pid_t pid = fork_child(by_user);

	if (pid < 0)
		abort();
	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		alarm(seconds);
		_exit(fn(arg));
	}
	return reap(pid);
}

int seats_in_child(int (*fn)(void *arg), void *arg, unsigned seconds)
{
	return run_in_child(fn, arg, seconds, true);
}

int seats_in_own_child(int (*fn)(void *arg), void *arg, unsigned seconds)
{
	return run_in_child(fn, arg, seconds, false);
}

unsigned seats_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned n = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir)) != NULL)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n - 1; /* the directory's own */
}

unsigned seats_children(void)
{
	siginfo_t info = { 0 };

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

uint64_t seats_seed(void)
{
	const char *text = getenv("ALLCORES_TEST_SEED");
	struct timespec t;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &t);
	seed = text ? strtoull(text, NULL, 0) :
		      (uint64_t)t.tv_nsec * 2654435761u + (uint64_t)getpid();
	printf("# seed ALLCORES_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

/* splitmix64: any seed will do, also 0. */
uint64_t seats_random(uint64_t *seed)
{
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

unsigned seats_scaled(unsigned steps)
{
	return steps / SLOWNESS;
}
