/* SPDX-License-Identifier: MIT */
/* The type Worker, for worker processes. */
#ifndef WORKER_H
#define WORKER_H

#include "ext.h"

extern PyType_Spec worker_spec;

#endif
