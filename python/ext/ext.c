/* SPDX-License-Identifier: MIT */
/*
 * The module's identity, by which state_of() finds the module's state. It lies here, below
 * all types, so that no type needs module.c, which registers all of them.
 */
#include "ext.h"

struct PyModuleDef core_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "allcores._core",
	.m_doc = "The engine of allcores, liballcores, for Python.",
	.m_size = sizeof(struct state),
};
