/* SPDX-License-Identifier: MIT */
/* The module allcores._core: its state, its types, its functions. */
#include "ext.h"

#include "codec.h"

static PyObject *cpus(PyObject *module, PyObject *args, PyObject *kwds)
{
	static char *names[] = { "leave", NULL };
	int leave = 0;

	(void)module;
	if (!PyArg_ParseTupleAndKeywords(args, kwds, "|i:cpus", names, &leave))
		return NULL;
	return PyLong_FromLong(ac_cpus(leave));
}

static PyObject *version(PyObject *module, PyObject *unused)
{
	(void)module, (void)unused;
	return PyUnicode_FromString(ac_version());
}

static PyObject *forget(PyObject *module, PyObject *unused)
{
	struct state *state = PyModule_GetState(module);

	(void)unused;
	Py_CLEAR(state->plain);
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
	{ "cpus", (PyCFunction)(void (*)(void))cpus, METH_VARARGS | METH_KEYWORDS,
	  "cpus(leave=0): processors that may be used, less leave." },
	{ "version", version, METH_NOARGS, "The engine's version." },
	{ "forget", forget, METH_NOARGS,
	  "The program ends: let go of its functions, and keep none any more." },
	{ 0 },
};

static PyObject *import_name(const char *module_name, const char *name)
{
	PyObject *module = PyImport_ImportModule(module_name);
	PyObject *object = module ? PyObject_GetAttrString(module, name) : NULL;

	Py_XDECREF(module);
	return object;
}

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
	PyTypeObject *type =
		(PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);

	if (type && PyModule_AddType(module, type) < 0)
		Py_CLEAR(type);
	return type;
}

static int fill_module(PyObject *module)
{
	struct state *state = PyModule_GetState(module);

	state->forking_pickler = import_name("multiprocessing.reduction", "ForkingPickler");
	state->loads = import_name("pickle", "loads");
	state->timeout_error = import_name("multiprocessing", "TimeoutError");
	state->explain_code = import_name("allcores.errors", "from_code");
	state->report = import_name("allcores.errors", "report_unfetched");
	state->plain = PyDict_New();
	if (!state->forking_pickler || !state->loads || !state->timeout_error ||
	    !state->explain_code || !state->report || !state->plain)
		return -1;
	state->sink_type = add_type(module, &sink_spec);
	state->pool_type = add_type(module, &pool_spec);
	state->task_type = add_type(module, &task_spec);
	state->stream_type = add_type(module, &stream_spec);
	state->worker_type = add_type(module, &worker_spec);
	return state->sink_type && state->pool_type && state->task_type &&
	       state->stream_type && state->worker_type ? 0 : -1;
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
	struct state *state = PyModule_GetState(module);

	Py_VISIT(state->sink_type);
	Py_VISIT(state->pool_type);
	Py_VISIT(state->task_type);
	Py_VISIT(state->stream_type);
	Py_VISIT(state->worker_type);
	Py_VISIT(state->forking_pickler);
	Py_VISIT(state->loads);
	Py_VISIT(state->plain);
	Py_VISIT(state->timeout_error);
	Py_VISIT(state->explain_code);
	Py_VISIT(state->report);
	return 0;
}

static int clear_module(PyObject *module)
{
	struct state *state = PyModule_GetState(module);

	encoder_free(state->spare);
	state->spare = NULL;
	Py_CLEAR(state->sink_type);
	Py_CLEAR(state->pool_type);
	Py_CLEAR(state->task_type);
	Py_CLEAR(state->stream_type);
	Py_CLEAR(state->worker_type);
	Py_CLEAR(state->forking_pickler);
	Py_CLEAR(state->loads);
	Py_CLEAR(state->plain);
	Py_CLEAR(state->timeout_error);
	Py_CLEAR(state->explain_code);
	Py_CLEAR(state->report);
	return 0;
}

static void free_module(void *module)
{
	clear_module(module);
}

static PyModuleDef_Slot slots[] = {
	{ Py_mod_exec, fill_module },
	{ 0 },
};

struct PyModuleDef core_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "allcores._core",
	.m_doc = "The engine of allcores, liballcores, for Python.",
	.m_size = sizeof(struct state),
	.m_methods = functions,
	.m_slots = slots,
	.m_traverse = traverse_module,
	.m_clear = clear_module,
	.m_free = free_module,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&core_module);
}
