/* SPDX-License-Identifier: MIT */
/* The type Pool. */
#ifndef POOL_H
#define POOL_H

#include "ext.h"

extern PyType_Spec pool_spec;

#endif
