/* SPDX-License-Identifier: MIT */
/*
 * A task as its worker has it: the argument, the result, the text of a failure; and
 * running it, a single call or a chunk of a map.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "block.h"
#include "worker.h"

/* Of the thread that runs a task. A map's function can reach its call in no other way. */
static __thread struct ac_call *current;

static int find_bound(struct ac_call *call)
{
	call->bound = ac__block_data(call->worker->board.arena, call->task->bound_block);
	if (!call->bound)
		return -ENOMEM;
	call->bound_len = call->task->bound_len;
	return 0;
}

int ac__call_begin(struct ac_call *call, struct ac_worker *worker, uint32_t index)
{
	struct ac__task_shm *task = &worker->board.tasks[index];
	struct ac__seat_shm *row = &worker->board.arena->seats[worker->seat];

	current = call;
	call->worker = worker;
	call->task = task;
	call->index = index;
	call->arg_len = task->len;
	call->bound = NULL;
	call->bound_len = 0;
	call->result.id = 0;
	call->result_len = 0;
	call->text[0] = '\0';
	call->divisible = task->flags & AC__TASK_UNITS;
	call->claimed = 0;
	call->pace.step = 0;
	call->arg = task->data;
	/* Release: a reader that sees this time sees that the last task is over, and a reader
	 * that sees this number sees this time. */
	atomic_store_explicit(&row->task_since, ac__sys_now_coarse(), memory_order_release);
	atomic_store_explicit(&row->task, task->number, memory_order_release);
	if (worker->board.trace_count || task->flags & AC__TASK_TIMED) {
		call->started_ns = ac__sys_now();
		atomic_store_explicit(&task->started_ns, call->started_ns,
				      memory_order_relaxed);
	}
	if (task->flags & AC__TASK_ARG_BLOCK)
		call->arg = ac__block_data(worker->board.arena, task->arg_block);
	if (!call->arg)
		return -ENOMEM;
	return task->flags & AC__TASK_BOUND ? find_bound(call) : 0;
}

/* The task becomes the holder of its result before the word says DONE. So the owner finds the
 * result there, also if this worker dies in between. */
static void hand_over_result(struct ac_call *call)
{
	struct ac__task_shm *task = call->task;

	task->len = call->result_len;
	if (!call->result.id) {
		memcpy(task->data, call->small, call->result_len);
		return;
	}
	AC_STEP();
	task->result_block = call->result.id;
	task->flags |= AC__TASK_RESULT_BLOCK;
	ac__block_pass(call->worker->board.arena, call->result.id,
		       call->worker->seat, AC__HOLDER_TASK | call->index);
}

static void drop_result(struct ac_call *call)
{
	if (call->result.id)
		ac__block_give(call->worker->board.arena, call->worker->seat,
			       call->result.id);
	call->result.id = 0;
	call->result_len = 0;
}

/* The function gave no text. */
static void describe_failure(struct ac_call *call)
{
	if (call->task->status == AC_ETASK)
		snprintf(call->text, sizeof call->text, "the task's function returned %d",
			 call->task->value);
	else
		snprintf(call->text, sizeof call->text, "the task could not be run: %s",
			 ac_strerror(call->task->status));
}

void ac__call_end(struct ac_call *call, int value)
{
	struct ac__task_shm *task = call->task;

	current = NULL;
	task->value = value;
	if (value && !task->status)
		task->status = AC_ETASK;
	if (task->kind == AC__KIND_CHUNK && !value && !task->status)
		return; /* its results are where they belong already */
	if (task->status == 0) {
		hand_over_result(call);
		return;
	}
	drop_result(call);
	if (!call->text[0])
		describe_failure(call);
	memcpy(task->text, call->text, sizeof task->text);
}

/* ---- for the function that runs ---- */

struct ac_call *ac_call_current(void)
{
	return current;
}

const void *ac_call_arg(const struct ac_call *call, size_t *len)
{
	if (len)
		*len = call ? call->arg_len : 0;
	return call ? call->arg : NULL;
}

const void *ac_call_bound(const struct ac_call *call, size_t *len)
{
	if (len)
		*len = call ? call->bound_len : 0;
	return call ? call->bound : NULL;
}

unsigned ac_call_worker(const struct ac_call *call)
{
	return call ? call->worker->seat - 1 : 0;
}

ac_call_fn *ac_call_function(const struct ac_call *call)
{
	return call ? (ac_call_fn *)(uintptr_t)call->task->fn : NULL;
}

void *ac_call_reserve(struct ac_call *call, size_t len)
{
	struct ac_worker *worker;

	if (!call)
		return NULL;
	worker = call->worker;
	drop_result(call);
	if (call->task->kind == AC__KIND_CHUNK || worker->forked)
		return NULL;
	if (len > AC__INLINE &&
	    ac__block_take(worker->board.arena, worker->seat, len,
			   &call->result) < 0)
		return NULL;
	call->result_len = len;
	return call->result.id ? call->result.data : call->small;
}

int ac_call_return(struct ac_call *call, const void *data, size_t len)
{
	void *result;

	if (!call || (len && !data))
		return -EINVAL;
	result = ac_call_reserve(call, len);
	if (!result)
		return -ENOMEM;
	if (len)
		memcpy(result, data, len);
	return 0;
}

int ac_call_fail(struct ac_call *call, const char *format, ...)
{
	va_list args;

	if (!call || !format)
		return AC_ETASK;
	va_start(args, format);
	vsnprintf(call->text, sizeof call->text, format, args);
	va_end(args);
	return AC_ETASK;
}

/* ---- claiming ---- */

/* Claim the next items, or units, for this worker: returns how many, from *first. The owner may
 * take the rest back at any time by moving the end. */
static uint32_t claim_items(struct ac__task_shm *task, uint32_t step, uint32_t *first)
{
	uint64_t seen = atomic_load_explicit(&task->cursor, memory_order_relaxed);
	uint32_t next, end, n;

	do {
		next = (uint32_t)seen;
		end = seen >> 32;
		if (next >= end)
			return 0;
		n = AC__MIN(step, end - next);
	} while (!atomic_compare_exchange_weak_explicit(
		&task->cursor, &seen, (uint64_t)end << 32 | (next + n),
		memory_order_acq_rel, memory_order_relaxed));
	*first = next;
	return n;
}

/* The items of one claim take about this long: claiming costs a hundredth of it, and the part that
 * the owner can't take back is short. The clock is read once in STEPS_PER_CLOCK claims. */
#define STEP_NS 1000
#define STEP_MOST 64
#define STEPS_PER_CLOCK 16

static void keep_pace(struct ac__pace *pace)
{
	int64_t now, took;

	if (++pace->steps < STEPS_PER_CLOCK && pace->step > 1)
		return;
	now = ac__sys_now();
	took = (now - pace->since) / pace->steps;
	if (took < STEP_NS / 2)
		pace->step = AC__MIN(pace->step * 2, STEP_MOST);
	else if (took > STEP_NS * 2)
		pace->step = AC__MAX(pace->step / 2, 1);
	pace->steps = 0;
	pace->since = now;
}

static uint32_t claim_units(struct ac_call *call)
{
	uint32_t first;

	if (!call->divisible || call->worker->forked)
		return 0;
	if (call->pace.step)
		keep_pace(&call->pace);
	else
		call->pace = (struct ac__pace){ .step = 1, .since = ac__sys_now() };
	return claim_items(call->task, call->pace.step, &first);
}

int ac_call_next_unit(struct ac_call *call)
{
	if (!call)
		return 0;
	if (!call->claimed)
		call->claimed = claim_units(call);
	if (!call->claimed)
		return 0;
	call->claimed--;
	return 1;
}

/* ---- running ---- */

/* A chunk's items as its worker sees them. */
struct chunk {
	ac_map_fn *fn;
	const char *items;
	char *results;
	const void *bound;
	size_t item_size, result_size;
};

static void open_chunk(const struct ac_call *call, struct chunk *chunk)
{
	const struct ac__task_shm *task = call->task;

	chunk->fn = (ac_map_fn *)(uintptr_t)task->fn;
	chunk->items = call->arg;
	chunk->results = (char *)call->arg + (uint64_t)task->results_at * 16;
	chunk->item_size = task->item_size;
	chunk->result_size = task->result_size;
	chunk->bound = call->bound;
}

static int run_items(const struct chunk *chunk, struct ac__task_shm *task,
		     uint32_t first, uint32_t n)
{
	const char *item = chunk->items + first * chunk->item_size;
	char *result = chunk->results + first * chunk->result_size;

	/* Done here and not by the owner: this core is about to write these lines. */
	memset(result, 0, n * chunk->result_size);
	for (uint32_t i = first; i < first + n; i++) {
		int value = chunk->fn(item, result, chunk->bound);

		if (value)
			return value;
		/* Release: if the owner sees i + 1 here it sees the result of i, also
		 * after this worker's death. */
		atomic_store_explicit(&task->current, i + 1,
				      memory_order_release);
		item += chunk->item_size;
		result += chunk->result_size;
	}
	return 0;
}

/* Stops early when this worker is to be recycled: the rest goes back. */
static int run_chunk(struct ac_call *call)
{
	struct ac__task_shm *task = call->task;
	struct ac_worker *worker = call->worker;
	uint32_t most = worker->board.shm->recycle ? worker->left : UINT32_MAX;
	uint32_t done = 0, first, n;
	struct ac__pace pace = { .step = AC__MAX(task->step, 1) };
	struct chunk chunk;
	int64_t start;
	int value = 0;

	open_chunk(call, &chunk);
	start = pace.since = ac__sys_now();
	while (done < most && !value && !worker->forked &&
	       (n = claim_items(task, AC__MIN(pace.step, most - done), &first))) {
		value = run_items(&chunk, task, first, n);
		done += n;
		keep_pace(&pace);
	}
	task->elapsed_ns = ac__sys_now() - start;
	return value;
}

int ac_call_run(struct ac_call *call)
{
	if (!call)
		return -EINVAL;
	if (call->task->kind == AC__KIND_CHUNK)
		return run_chunk(call);
	return ac_call_function(call)(call);
}
