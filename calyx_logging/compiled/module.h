/* The module: what Python code tells the core, and what it gets. */

static const struct {
    const char *name;
    PyObject **place;
} objects[] = {
    {"record_class", &record_class},
    {"record_attributes", &record_attributes},
    {"record_template", &record_template},
    {"not_of_record", &not_of_record},
    {"not_of_logger", &not_of_logger},
    {"not_of_structlog", &not_of_structlog},
    {"refused_by_logging", &refused_by_logging},
    {"level_names", &level_names},
    {"process_fields", &process_fields},
    {"bound_context", &bound_context},
    {"orjson_dumps", &orjson_dumps},
    {"logger_class", &logger_class},
    {"stock_methods", &stock_methods},
    {"stock_source", &stock_source},
    {"logging_names", &logging_names},
    {"time_names", &time_names},
    {"threads", &threads},
    {"thread_classes", &thread_classes},
    {"source_of", &source_of},
    {"process_name", &process_name},
    {"task_name", &task_name},
    {"straight_chain", &straight_chain},
};

static const struct {
    const char *name;
    Member *place;
} members[] = {
    {"pool_seats", &pool_seats},     {"pool_pid", &pool_pid},
    {"seats_idle", &seats_idle},     {"seat_writer", &seat_writer},
    {"writer_state", &writer_state}, {"writer_limit", &writer_limit},
    {"chunk_fd", &chunk_fd},         {"handler_way", &handler_way},
    {"straight_name", &straight_name}, {"straight_handler", &straight_handler},
};

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static PyObject *use(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args), PyObject *told) {
    PyObject *name, *value, *key;
    for (Py_ssize_t position = 0; told != NULL && PyDict_Next(told, &position, &name, &value);) {
        size_t n = 0;
        while (n < COUNT_OF(members) && PyUnicode_CompareWithASCIIString(name, members[n].name)) n++;
        if (n < COUNT_OF(members)) {
            if (!Py_IS_TYPE(value, &PyMemberDescr_Type)) return PyErr_Format(PyExc_TypeError, "%U is no slot", name);
            members[n].place->type = PyDescr_TYPE(value);
            members[n].place->offset = ((PyMemberDescrObject *)value)->d_member->offset;
            continue;
        }
        for (n = 0; n < COUNT_OF(objects) && PyUnicode_CompareWithASCIIString(name, objects[n].name);) n++;
        if (n == COUNT_OF(objects)) return PyErr_Format(PyExc_TypeError, "the core has no use for %U", name);
        Py_XSETREF(*objects[n].place, Py_NewRef(value));
        if (!PyFrozenSet_CheckExact(value)) continue;
        PyObject *names = PyObject_GetIter(value);
        while (names != NULL && (key = PyIter_Next(names)) != NULL) {
            if (PyUnicode_CheckExact(key) && PyUnicode_GET_LENGTH(key) < 64)
                name_lengths[PyUnicode_READ_CHAR(key, 0) & 127] |= (uint64_t)1 << PyUnicode_GET_LENGTH(key);
            Py_DECREF(key);
        }
        Py_XDECREF(names);
        if (PyErr_Occurred()) return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *shortcut(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *kind;
    PyObject *python, *level = NULL;
    if (!PyArg_ParseTuple(args, "sO|O!", &kind, &python, &PyLong_Type, &level)) return NULL;
    Shortcut *made = PyObject_New(Shortcut, shortcut_type);
    if (made == NULL) return NULL;
    made->call = shortcut_call;
    made->python = Py_NewRef(python);
    made->level = Py_XNewRef(level);
    made->try = !strcmp(kind, "handle") ? try_handle : !strcmp(kind, "straight") ? try_straight : try_log;
    return (PyObject *)made;
}

static PyObject *event_id(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    char id[ID_LENGTH];
    return new_id(id, 0) ? NULL : PyUnicode_FromStringAndSize(id, ID_LENGTH);
}

static PyMethodDef functions[] = {
    {"event_id", event_id, METH_NOARGS, "Make a new event id, which is greater than the one before."},
    {"mark_of", mark_of, METH_O, "Return the mark of a record (calyx_logging.events.stamp)."},
    {"scan", scan, METH_VARARGS,
     "scan(lines, begin, is_whole, with_ids): (events, runs of seq, first and last time, places of other lines, hashes)."},
    {"shortcut", shortcut, METH_VARARGS, "shortcut(kind, function[, level]): the function, with a short way before it."},
    {"use", (PyCFunction)(void (*)(void))use, METH_VARARGS | METH_KEYWORDS, "Tell objects and members of __slots__."},
    {NULL, NULL, 0, NULL},
};

static PyObject *attribute_of(const char *module, const char *name) {
    PyObject *found = PyImport_ImportModule(module), *value = found == NULL ? NULL : PyObject_GetAttrString(found, name);
    Py_XDECREF(found);
    return value;
}

static int core_exec(PyObject *module) {
    if (shortcut_type != NULL) {
        PyErr_SetString(PyExc_ImportError, "the compiled core serves one interpreter of a process");
        return -1;
    }
#define INTERN(name) text_##name = PyUnicode_InternFromString(#name);
    TEXTS(INTERN)
    text_event_id = PyUnicode_InternFromString("event_id");
    text_contextvars = PyUnicode_InternFromString("structlog.contextvars");
    for (int n = 0; n < WANTED; n++) wanted_names[n] = PyUnicode_InternFromString(wanted[n]);
    PyObject *deque = attribute_of("collections", "deque");
    if (deque == NULL) return -1;
    deque_pop = PyObject_GetAttrString(deque, "pop");
    deque_append = PyObject_GetAttrString(deque, "append");
    Py_DECREF(deque);
    os_urandom = attribute_of("os", "urandom");
    time_time = attribute_of("time", "time");
#if PY_VERSION_HEX >= 0x030D0000
    time_time_ns = attribute_of("time", "time_ns");
#endif
    sys_modules = Py_XNewRef(PyImport_GetModuleDict());
    marks = PyDict_New();
    marks_pop = marks == NULL ? NULL : PyObject_GetAttrString(marks, "pop");
    if (PyErr_Occurred() || PyModule_AddStringConstant(module, "VERSION", CORE_VERSION)) return -1;
    process_id = (long)getpid();
    ids_init();
#ifndef _WIN32
    if (pthread_atfork(NULL, NULL, after_fork_in_child)) {
        PyErr_SetString(PyExc_ImportError, "no notice of forks (pthread_atfork)");
        return -1;
    }
#endif
    shortcut_type = (PyTypeObject *)PyType_FromSpec(&shortcut_spec);
    return shortcut_type == NULL ? -1 : 0;
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, core_exec}, {0, NULL}};
static PyModuleDef core_module = {PyModuleDef_HEAD_INIT, "_core", "The compiled core; docs/compiled.md is its guide.",
                                  0, functions, core_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
