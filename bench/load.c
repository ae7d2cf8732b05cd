/* SPDX-License-Identifier: MIT */
/*
 * How busy the rest of the machine is: /proc/stat's CPU time of everybody,
 * less that of our own processes.
 */
#include "bench.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static int64_t rusage_ns(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ll +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ll;
}

/* Steal counts as busy: a core that the host took was not ours either. */
static int64_t machine_busy_ns(void)
{
	long long user = 0, nice = 0, system = 0, idle, iowait, irq = 0, soft = 0, steal = 0;
	FILE *file = fopen("/proc/stat", "r");

	if (!file)
		return 0;
	if (fscanf(file, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &user, &nice, &system,
		   &idle, &iowait, &irq, &soft, &steal) < 3)
		user = nice = system = 0;
	fclose(file);
	return (user + nice + system + irq + soft + steal) * (1000000000ll / sysconf(_SC_CLK_TCK));
}

struct bench_load bench_load_now(void)
{
	return (struct bench_load){
		.wall = bench_now(),
		.busy = machine_busy_ns(),
		.own = rusage_ns(RUSAGE_SELF) + rusage_ns(RUSAGE_CHILDREN),
	};
}

double bench_load_others(const struct bench_load *from, const struct bench_load *to)
{
	int64_t others = (to->busy - from->busy) - (to->own - from->own);

	return others > 0 ? (double)others / (double)(to->wall - from->wall) : 0;
}
