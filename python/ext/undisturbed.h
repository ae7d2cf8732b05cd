/* SPDX-License-Identifier: MIT */
/* Python code that no signal handler of the program's may interrupt. */
#ifndef UNDISTURBED_H
#define UNDISTURBED_H

#include "ext.h"

/*
 * Call function(arg) with the GIL, in a thread that runs no signal handlers: in this one, or where
 * this is the main thread, in another one that this thread waits for. While the main thread imports a
 * module it makes the call itself, and handlers may run then: another thread could wait for the import.
 * An exception that is
 * set in the calling thread stays set; function leaves none. Any thread, with the GIL or without it.
 * 0, or -errno: no thread could be started, and function was not called.
 */
int run_undisturbed(void (*function)(void *arg), void *arg);
/* undisturbed(function): the function of the module. */
PyObject *undisturbed(PyObject *module, PyObject *function);

#endif
