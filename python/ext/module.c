/* SPDX-License-Identifier: MIT */
/* The module allcores._core: registers its types and functions, fills and frees its state. */
#include "function.h"
#include "pool.h"
#include "records.h"
#include "reducers.h"
#include "sink.h"
#include "small.h"
#include "stream.h"
#include "task.h"
#include "undisturbed.h"
#include "worker.h"

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

/* For tests. */
static PyObject *encode_small(PyObject *module, PyObject *object)
{
	struct state *state = PyModule_GetState(module);
	struct sink *sink = (struct sink *)state->sink_type->tp_alloc(state->sink_type, 0);
	PyObject *bytes = NULL;
	int r = sink ? small_encode(sink, object) : -1;

	if (r >= 0)
		bytes = r ? PyBytes_FromStringAndSize(sink->data, (Py_ssize_t)sink->len) :
			    Py_NewRef(Py_None);
	Py_XDECREF(sink);
	return bytes;
}

/* For tests. */
static PyObject *decode_small(PyObject *module, PyObject *bytes)
{
	(void)module;
	if (!PyBytes_Check(bytes))
		return PyErr_Format(PyExc_TypeError, "decode_small needs bytes");
	return small_decode(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static PyMethodDef functions[] = {
	{ "cpus", (PyCFunction)(void (*)(void))cpus, METH_VARARGS | METH_KEYWORDS,
	  "cpus($module, leave=0)\n--\n\n"
	  "Return the number of processors that this process may really use, at least 1.\n\n"
	  "It is the least of those in its affinity mask, the quotas of its control groups (rounded\n"
	  "up) and the environment's ALLCORES_CPUS.\n\n"
	  "leave: how many of them to leave to others: they are subtracted.\n\n"
	  "Raises:\n"
	  "    TypeError: leave is not an int." },
	{ "version", version, METH_NOARGS, "The engine's version." },
	{ "undisturbed", undisturbed, METH_O,
	  "undisturbed(function) -> object\n\nCall function() where no signal handler of the program's can "
	  "interrupt it: in another thread, if this is the main thread." },
	{ "encode_small", encode_small, METH_O,
	  "encode_small(object) -> bytes, or None: it is no small value. For tests." },
	{ "decode_small", decode_small, METH_O, "decode_small(bytes) -> object. For tests." },
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

static int add_constants(PyObject *module)
{
	static const struct {
		const char *name;
		long value;
	} constants[] = {
		{ "WORKER_ABSENT", AC_WORKER_ABSENT },
		{ "WORKER_STARTING", AC_WORKER_STARTING },
		{ "WORKER_IDLE", AC_WORKER_IDLE },
		{ "WORKER_BUSY", AC_WORKER_BUSY },
		{ "STAGE_DECODE", STAGE_DECODE },
		{ "STAGE_RUN", STAGE_RUN },
		{ "STAGE_ENCODE", STAGE_ENCODE },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof constants / sizeof constants[0]; i++)
		r = PyModule_AddIntConstant(module, constants[i].name, constants[i].value);
	return r;
}

/*
 * The engine's threads enter Python by PyGILState_Ensure, which knows the main interpreter
 * only. The slot below says so from 3.12 on; but interpreters made the old way, as mod_wsgi's
 * are, don't ask for it.
 */
static int refuse_subinterpreter(void)
{
	if (PyInterpreterState_Get() == PyInterpreterState_Main())
		return 0;
	PyErr_SetString(PyExc_ImportError,
			"module allcores._core does not support loading in subinterpreters");
	return -1;
}

static int fill_module(PyObject *module)
{
	struct state *state = PyModule_GetState(module);

	if (refuse_subinterpreter() < 0)
		return -1;
	state->timeout_error = import_name("multiprocessing", "TimeoutError");
	state->from_code = import_name("allcores.errors", "from_code");
	state->log_unfetched = import_name("allcores.errors", "report_unfetched");
	state->str_dumps = PyUnicode_InternFromString("dumps");
	state->str_loads = PyUnicode_InternFromString("loads");
	state->str_module = PyUnicode_InternFromString("__module__");
	state->str_qualname = PyUnicode_InternFromString("__qualname__");
	if (!state->timeout_error || !state->from_code || !state->log_unfetched ||
	    !state->str_dumps || !state->str_loads || !state->str_module || !state->str_qualname)
		return -1;
	state->sink_type = add_type(module, &sink_spec);
	state->pool_type = add_type(module, &pool_spec);
	state->task_type = add_type(module, &task_spec);
	state->stream_type = add_type(module, &stream_spec);
	state->reducers_type = add_type(module, &reducers_spec);
	state->function_type = add_type(module, &function_spec);
	state->worker_type = add_type(module, &worker_spec);
	if (!state->sink_type || !state->pool_type || !state->task_type || !state->stream_type ||
	    !state->function_type || !state->reducers_type ||
	    !state->worker_type ||
	    records_add_types(module, state) < 0)
		return -1;
	return add_constants(module);
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
	struct state *state = PyModule_GetState(module);

	Py_VISIT(state->sink_type);
	Py_VISIT(state->pool_type);
	Py_VISIT(state->task_type);
	Py_VISIT(state->stream_type);
	Py_VISIT(state->function_type);
	Py_VISIT(state->worker_type);
	Py_VISIT(state->outcome_type);
	Py_VISIT(state->worker_stat_type);
	Py_VISIT(state->forking_pickler);
	Py_VISIT(state->plain_dumps);
	Py_VISIT(state->reducers_type);
	Py_VISIT(state->reducers);
	Py_VISIT(state->timeout_error);
	Py_VISIT(state->from_code);
	Py_VISIT(state->log_unfetched);
	return 0;
}

static int clear_module(PyObject *module)
{
	struct state *state = PyModule_GetState(module);

	encoder_free(state->spare_encoder);
	state->spare_encoder = NULL;
	Py_CLEAR(state->sink_type);
	Py_CLEAR(state->pool_type);
	Py_CLEAR(state->task_type);
	Py_CLEAR(state->stream_type);
	Py_CLEAR(state->function_type);
	Py_CLEAR(state->worker_type);
	Py_CLEAR(state->outcome_type);
	Py_CLEAR(state->worker_stat_type);
	Py_CLEAR(state->forking_pickler);
	Py_CLEAR(state->plain_dumps);
	Py_CLEAR(state->last_name.module);
	Py_CLEAR(state->last_name.qualname);
	Py_CLEAR(state->last_name.pickle);
	Py_CLEAR(state->reducers_type);
	Py_CLEAR(state->reducers);
	Py_CLEAR(state->str_dumps);
	Py_CLEAR(state->str_loads);
	Py_CLEAR(state->str_module);
	Py_CLEAR(state->str_qualname);
	Py_CLEAR(state->timeout_error);
	Py_CLEAR(state->from_code);
	Py_CLEAR(state->log_unfetched);
	return 0;
}

static void free_module(void *module)
{
	clear_module(module);
}

static PyModuleDef_Slot slots[] = {
	{ Py_mod_exec, fill_module },
#ifdef Py_mod_multiple_interpreters /* 3.12 */
	{ Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED },
#endif
#ifdef Py_mod_gil /* 3.13; an interpreter without a GIL switches it on */
	{ Py_mod_gil, Py_MOD_GIL_USED },
#endif
	{ 0 },
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
	core_module.m_methods = functions;
	core_module.m_slots = slots;
	core_module.m_traverse = traverse_module;
	core_module.m_clear = clear_module;
	core_module.m_free = free_module;
	return PyModuleDef_Init(&core_module);
}
