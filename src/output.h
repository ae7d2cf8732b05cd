/* SPDX-License-Identifier: MIT */
/*
 * What a forked process does about buffered output. Only stdout and stderr are touched, and
 * never fflush(NULL): that waits for the lock of every FILE, and a thread that waits
 * for input holds the lock of stdin for as long as it waits.
 */
#ifndef AC__OUTPUT_H
#define AC__OUTPUT_H

/* Before a fork, and where a worker falls idle. A stream that another thread has locked stays as
 * it is. May block in write, as printing does. */
void ac__output_try_flush(void);
/* At a child's normal exit: waits for locks, like exit. */
void ac__output_flush(void);
/* First thing in a child: what the parent had buffered is the parent's to write. */
void ac__output_discard(void);

#endif
