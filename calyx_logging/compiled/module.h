/* The module: what Python code tells the core, and what it gets. */

#define OBJECT(name) {#name, &name}
static const struct {
    const char *name;
    PyObject **place;
} objects[] = {
    OBJECT(record_class),
    OBJECT(record_attributes),
    OBJECT(record_template),
    OBJECT(not_of_record),
    OBJECT(not_of_logger),
    OBJECT(not_of_structlog),
    OBJECT(refused_by_logging),
    OBJECT(level_names),
    OBJECT(process_fields),
    OBJECT(bound_context),
    OBJECT(orjson_dumps),
    OBJECT(logger_class),
    OBJECT(stock_logger),
    OBJECT(stock_methods),
    OBJECT(stock_callers),
    OBJECT(stock_record),
    OBJECT(stock_names),
    OBJECT(logging_names),
    OBJECT(time_names),
    OBJECT(threading_names),
    OBJECT(thread_ident),
    OBJECT(threads),
    OBJECT(thread_classes),
    OBJECT(source_of),
    OBJECT(process_name),
    OBJECT(task_name),
    OBJECT(straight_class),
    OBJECT(straight_end),
};
enum { NOT_NEEDED = 2 }; /* the last ones are structlog's, which may never be imported */

static const struct {
    const char *name;
    Member *place;
} members[] = {
    OBJECT(pool_seats), OBJECT(pool_pid), OBJECT(seats_idle), OBJECT(seat_writer), OBJECT(writer_state),
    OBJECT(writer_limit), OBJECT(chunk_fd), OBJECT(handler_way), OBJECT(straight_name), OBJECT(straight_handler),
    OBJECT(straight_methods),
};

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
    is_told = 1;
    for (size_t n = 0; n < COUNT_OF(objects) - NOT_NEEDED; n++) is_told = is_told && *objects[n].place != NULL;
    if (is_told) watch_names();
    Py_RETURN_NONE;
}

static PyObject *shortcut(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *kind;
    PyObject *python = NULL, *owner = NULL, *name = NULL, *level = NULL;
    if (!PyArg_ParseTuple(args, "sO|OUO!", &kind, &python, &owner, &name, &PyLong_Type, &level)) return NULL;
    Shortcut *made = PyObject_New(Shortcut, shortcut_type);
    if (made == NULL) return NULL;
    made->call = shortcut_call;
    made->python = Py_NewRef(python);
    made->owner = owner == Py_None ? NULL : Py_XNewRef(owner);
    made->name = Py_XNewRef(name);
    made->level = Py_XNewRef(level);
    made->weak_references = NULL;
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
    {"rows", rows, METH_VARARGS, "rows(lines, begin, number): (rows, their columns as buffers, places of other lines)."},
    {"scan", scan, METH_VARARGS,
     "scan(lines, begin, is_whole, with_ids): (events, runs of seq, first and last time, places of other lines, hashes)."},
    {"shortcut", shortcut, METH_VARARGS, "shortcut(kind, method[, owner, name, level]): the method, with a short way before it."},
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
