/* The fast logger's methods, and those of structlog loggers that lead straight into an outbox. */

enum { MOST_HANDLERS = 8, LINES = 256 };

/* ---------------------------------------------------------------- what would be called */

/* Whether FastLogger, and so what is above it, and LogRecord have logging's own methods: 1; 2 if all but callHandlers,
   which `capture` replaces. A class's version changes with every change of it or of a class above it. */
static int is_stock(void) {
    static unsigned logger_version, record_version;
    static int known;
    unsigned logger_now = ((PyTypeObject *)logger_class)->tp_version_tag;
    unsigned record_now = ((PyTypeObject *)record_class)->tp_version_tag;
    if (logger_now && logger_now == logger_version && record_now && record_now == record_version) return known;
    PyObject *key, *value;
    known = 1;
    for (Py_ssize_t position = 0; PyDict_Next(stock_methods, &position, &key, &value);) {
        int is_of_record = PyUnicode_READ_CHAR(key, 0) == '_' && PyUnicode_READ_CHAR(key, 1) == '_';
        PyObject *found = PyObject_GetAttr(is_of_record ? record_class : logger_class, key);
        Py_XDECREF(found);
        if (found == value) continue;
        PyErr_Clear();
        known = known && PyUnicode_CompareWithASCIIString(key, "callHandlers") == 0 ? 2 : 0;
        if (!known) break;
    }
    logger_version = ((PyTypeObject *)logger_class)->tp_version_tag;
    record_version = ((PyTypeObject *)record_class)->tp_version_tag;
    return known;
}

typedef struct {
    PyObject *all[MOST_HANDLERS];
    int count;
} Handlers;

static void handlers_free(Handlers *handlers) {
    while (handlers->count) Py_DECREF(handlers->all[--handlers->count]);
}

static int find_handlers(PyObject *logger, long level, Handlers *handlers) { /* as Logger.callHandlers does */
    Py_ssize_t seen = 0;
    for (PyObject *here = logger; here != NULL && here != Py_None;) {
        PyObject *attributes = PyObject_GenericGetDict(here, NULL);
        if (attributes == NULL) return FAILED;
        PyObject *list = item(attributes, text_handlers), *propagates = item(attributes, text_propagate);
        PyObject *parent = item(attributes, text_parent);
        Py_DECREF(attributes); /* the logger has it */
        if (list == NULL || !PyList_CheckExact(list) || parent == NULL || propagates == NULL || !PyBool_Check(propagates))
            return NOT_PLAIN;
        for (Py_ssize_t n = 0; n < PyList_GET_SIZE(list); n++, seen++) {
            PyObject *handler = PyList_GET_ITEM(list, n), *least = PyObject_GetAttr(handler, text_level);
            if (least == NULL || !PyLong_CheckExact(least)) {
                Py_XDECREF(least);
                PyErr_Clear();
                return NOT_PLAIN;
            }
            int is_for_it = level >= PyLong_AsLong(least);
            Py_DECREF(least);
            if (!is_for_it) continue;
            if (handlers->count == MOST_HANDLERS) return NOT_PLAIN;
            handlers->all[handlers->count++] = Py_NewRef(handler);
        }
        here = propagates == Py_True ? parent : NULL;
    }
    return seen ? DONE : NOT_PLAIN; /* nobody at all: logging.lastResort */
}

/* ---------------------------------------------------------------- the record */

static int is_clock_stock(void) { return item(time_names, text_time) == time_time; }

#if PY_VERSION_HEX >= 0x030D0000
static PyObject *time_time_ns;

static int put_times(PyObject *attributes, double *created) { /* created, msecs and relativeCreated, as logging does */
    PyObject *clock = PyObject_CallNoArgs(time_time_ns), *start = item(logging_names, text__startTime);
    if (clock == NULL || start == NULL || !PyLong_CheckExact(start)) {
        Py_XDECREF(clock);
        return clock == NULL ? FAILED : NOT_PLAIN;
    }
    long long now = PyLong_AsLongLong(clock), began = PyLong_AsLongLong(start);
    Py_DECREF(clock);
    double thousandths = (double)(now % 1000000000 / 1000000);
    *created = (double)now / 1e9;
    if (thousandths == 999 && (long long)*created != now / 1000000000) thousandths = 0;
    double relative = (double)(now - began) / 1e6;
#else
static int put_times(PyObject *attributes, double *created) {
    PyObject *clock = PyObject_CallNoArgs(time_time), *start = item(logging_names, text__startTime);
    if (clock == NULL || start == NULL || !PyFloat_CheckExact(start)) {
        Py_XDECREF(clock);
        return clock == NULL ? FAILED : NOT_PLAIN;
    }
    *created = PyFloat_AS_DOUBLE(clock);
    Py_DECREF(clock);
    double thousandths = (double)(long long)((*created - (double)(long long)*created) * 1000);
    double relative = (*created - PyFloat_AS_DOUBLE(start)) * 1000;
#endif
    if (attributes == NULL) return DONE;
    double values[] = {*created, thousandths, relative};
    for (int n = 0; n < 3; n++) { /* they follow on each other */
        PyObject *value = PyFloat_FromDouble(values[n]);
        int failed = value == NULL || PyDict_SetItem(attributes, PyTuple_GET_ITEM(record_attributes, 13 + n), value);
        Py_XDECREF(value);
        if (failed) return FAILED;
    }
    return DONE;
}

static int set(PyObject *attributes, int place, PyObject *value) { /* takes the reference over */
    int failed = value == NULL || PyDict_SetItem(attributes, PyTuple_GET_ITEM(record_attributes, place), value);
    Py_XDECREF(value);
    return failed ? FAILED : DONE;
}

static int put_place(PyObject *attributes) { /* where the call stands: pathname, filename, module, lineno, funcName */
    static struct {
        PyObject *code, *line;
        int instruction;
    } lines[LINES];
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) return NOT_PLAIN;
    PyCodeObject *code = PyFrame_GetCode(frame);
    int instruction = PyFrame_GetLasti(frame);
    size_t place = ((uintptr_t)code >> 5 ^ (size_t)instruction) % LINES;
    PyObject *source = item(source_of, code->co_filename);
    if (source == NULL || !PyTuple_CheckExact(source)) { /* not seen yet, or a file of logging */
        Py_DECREF(code);
        return NOT_PLAIN;
    }
    if (lines[place].code != (PyObject *)code || lines[place].instruction != instruction) {
        PyObject *line = PyLong_FromLong(PyFrame_GetLineNumber(frame)), *had = lines[place].code;
        if (line != NULL) {
            Py_XSETREF(lines[place].line, line);
            lines[place].code = Py_NewRef(code);
            lines[place].instruction = instruction;
            Py_XDECREF(had);
        }
    }
    int result = PyErr_Occurred() ? FAILED : set(attributes, 5, Py_NewRef(code->co_filename));
    if (result == DONE) result = set(attributes, 6, Py_NewRef(PyTuple_GET_ITEM(source, 0)));
    if (result == DONE) result = set(attributes, 7, Py_NewRef(PyTuple_GET_ITEM(source, 1)));
    if (result == DONE) result = set(attributes, 11, Py_NewRef(lines[place].line));
    if (result == DONE) result = set(attributes, 12, Py_NewRef(code->co_name));
    Py_DECREF(code);
    return result;
}

static int put_thread(PyObject *attributes) { /* thread, threadName, processName, process, taskName */
    static PyObject *pid;
    static long pid_is;
    if (pid == NULL || pid_is != process_id) {
        PyObject *new = PyLong_FromLong(process_id);
        if (new == NULL) return FAILED;
        Py_XSETREF(pid, new);
        pid_is = process_id;
    }
    PyObject *ident = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
    PyObject *thread = ident == NULL ? NULL : item(threads, ident);
    int is_usual = thread != NULL && PySet_Contains(thread_classes, (PyObject *)Py_TYPE(thread)) == 1;
    int result = ident == NULL ? FAILED : !is_usual ? NOT_PLAIN : set(attributes, 17, PyObject_GetAttr(thread, text__name));
    if (result == DONE) result = set(attributes, 16, ident);
    else Py_XDECREF(ident);
    if (result == DONE && item(sys_modules, text_multiprocessing)) result = set(attributes, 18, PyObject_CallNoArgs(process_name));
    if (result == DONE) result = set(attributes, 19, Py_NewRef(pid));
    if (result == DONE && PyTuple_GET_SIZE(record_attributes) > 20 && item(sys_modules, text_asyncio))
        result = set(attributes, 20, PyObject_CallNoArgs(task_name));
    return result;
}

/* Make the record of a call; NULL with an exception, or without one where Python has to. */
static PyObject *make_record(PyObject *name, PyObject *level, PyObject *message, PyObject *args, PyObject *extra) {
    PyObject *key, *value, *level_name = item(level_names, level), *flags[] = {text_logThreads, text_logProcesses,
                                                                             text_logMultiprocessing};
    if (level_name == NULL || record_template == NULL || item(logging_names, text__srcfile) != stock_source) return NULL;
    for (int n = 0; n < 3; n++)
        if (item(logging_names, flags[n]) != Py_True) return NULL;
    for (Py_ssize_t position = 0; extra != NULL && PyDict_Next(extra, &position, &key, &value);)
        if (!PyUnicode_CheckExact(key) || PySet_Contains(refused_by_logging, key)) return NULL;
    PyObject *attributes = PyDict_Copy(record_template), *record = NULL;
    double created;
    int result = attributes == NULL ? FAILED : set(attributes, 0, Py_NewRef(name));
    if (result == DONE) result = set(attributes, 1, Py_NewRef(message));
    if (result == DONE) result = set(attributes, 2, Py_NewRef(args));
    if (result == DONE) result = set(attributes, 3, Py_NewRef(level_name));
    if (result == DONE) result = set(attributes, 4, Py_NewRef(level));
    if (result == DONE) result = put_place(attributes);
    if (result == DONE) result = put_times(attributes, &created);
    if (result == DONE) result = put_thread(attributes);
    if (result == DONE && extra != NULL && PyDict_Update(attributes, extra)) result = FAILED;
    if (result == DONE) record = ((PyTypeObject *)record_class)->tp_alloc((PyTypeObject *)record_class, 0);
    if (record != NULL && PyObject_SetAttr(record, text___dict__, attributes)) Py_CLEAR(record);
    Py_XDECREF(attributes);
    return record;
}

/* ---------------------------------------------------------------- FastLogger.info and its kin */

static int log_to(Handlers *handlers, PyObject *name, PyObject *level, PyObject *message, PyObject *args, PyObject *extra,
                  int is_callers_stock) {
    Way way;
    if (handlers->count == 1 && is_callers_stock && way_of(handlers->all[0], &way) == DONE) {
        PyObject *attributes = PyObject_GenericGetDict(handlers->all[0], NULL);
        int is_usual = attributes != NULL && !has_filters(NULL, attributes) && item(attributes, text_handle) == NULL;
        Py_XDECREF(attributes);
        Event event = {0, level, name, message, args, {.dict = extra, .refused = not_of_logger}};
        if (is_usual && put_times(NULL, &event.created) == DONE) { /* nobody else would see the record */
            PyObject *told = Py_NewRef(get(&handler_way, handlers->all[0]));
            int result = write_event(&way, &event, NULL);
            Py_DECREF(told);
            if (result != NOT_PLAIN) return result;
        }
        if (PyErr_Occurred()) return FAILED;
    }
    PyObject *record = make_record(name, level, message, args, extra);
    if (record == NULL) return PyErr_Occurred() ? FAILED : NOT_PLAIN;
    int result = DONE;
    for (int n = 0; result == DONE && n < handlers->count; n++) {
        PyObject *both[] = {handlers->all[n], record}, *done = PyObject_VectorcallMethod(text_handle, both, 2, NULL);
        if (done == NULL) result = RAISED;
        Py_XDECREF(done);
    }
    Py_DECREF(record);
    return result;
}

static int try_log(Shortcut *shortcut, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **result) {
    PyObject *extra = NULL, *rest = NULL, *attributes, *is_on, *cache, *name;
    if (count < 2 || (PyObject *)Py_TYPE(args[0]) != logger_class) return NOT_PLAIN;
    if (names != NULL && PyTuple_GET_SIZE(names)) {
        if (PyTuple_GET_SIZE(names) != 1 || PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), text_extra)) return NOT_PLAIN;
        if ((extra = args[count]) == Py_None) extra = NULL;
        if (extra != NULL && !PyDict_CheckExact(extra)) return NOT_PLAIN;
    }
    if ((attributes = PyObject_GenericGetDict(args[0], NULL)) == NULL) return FAILED;
    Py_DECREF(attributes); /* the logger has it */
    cache = item(attributes, text__cache);
    name = item(attributes, text_name);
    if (PyDict_GET_SIZE(attributes) != 8 + (item(attributes, text_manager) != NULL) || cache == NULL ||
        !PyDict_CheckExact(cache) || name == NULL || !PyUnicode_CheckExact(name) ||
        item(attributes, text_disabled) != Py_False)
        return NOT_PLAIN; /* a logger with attributes more than logging's: one may be a method */
    int kind = is_stock();
    if (!kind || (is_on = item(cache, shortcut->level)) == NULL) return NOT_PLAIN; /* Python finds that out, and keeps it */
    if (is_on == Py_False) {
        *result = Py_NewRef(Py_None);
        return DONE;
    }
    if (is_on != Py_True || !is_clock_stock() || item(logging_names, text__logRecordFactory) != record_class)
        return NOT_PLAIN;
    if (count == 3 && PyDict_CheckExact(args[2]) && PyDict_GET_SIZE(args[2])) {
        rest = Py_NewRef(args[2]);
    } else {
        if (count == 3 && !is_scalar(args[2]) && !PyTuple_CheckExact(args[2]) && !PyList_CheckExact(args[2])) return NOT_PLAIN;
        if ((rest = PyTuple_New(count - 2)) == NULL) return FAILED;
        for (Py_ssize_t n = 2; n < count; n++) PyTuple_SET_ITEM(rest, n - 2, Py_NewRef(args[n]));
    }
    Handlers handlers = {.count = 0};
    Py_INCREF(name);
    int done = DONE, is_alone = kind == 1 && !has_filters(NULL, attributes); /* else its own `handle` sees to it */
    if (is_alone) done = find_handlers(args[0], PyLong_AsLong(shortcut->level), &handlers);
    else handlers.all[handlers.count++] = Py_NewRef(args[0]);
    if (done == DONE && handlers.count) done = log_to(&handlers, name, shortcut->level, args[1], rest, extra, is_alone);
    handlers_free(&handlers);
    Py_DECREF(rest);
    Py_DECREF(name);
    if (done == DONE) *result = Py_NewRef(Py_None);
    return done;
}

/* ---------------------------------------------------------------- structlog straight */

static int try_straight(Shortcut *shortcut, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **result) {
    Way way;
    if (count != 2 || !PyUnicode_CheckExact(args[1])) return NOT_PLAIN;
    PyObject *attributes = PyObject_GenericGetDict(args[0], NULL), *merged = NULL;
    if (attributes == NULL) return FAILED;
    Py_DECREF(attributes); /* the logger has it */
    PyObject *logger = item(attributes, text__logger), *context = item(attributes, text__context);
    if (logger == NULL || item(attributes, text__processors) != straight_chain || context == NULL ||
        !PyDict_CheckExact(context) || way_of(get(&straight_handler, logger), &way))
        return NOT_PLAIN;
    Event event = {0, shortcut->level, get(&straight_name, logger), args[1], NULL,
                   {.names = names, .values = args + count, .refused = not_of_structlog}};
    if (event.name == NULL || !PyUnicode_CheckExact(event.name)) return NOT_PLAIN;
    PyObject *clock = PyObject_CallNoArgs(time_time), *told = Py_NewRef(get(&handler_way, get(&straight_handler, logger)));
    int done = clock == NULL ? FAILED : DONE;
    if (done == DONE) event.created = PyFloat_AS_DOUBLE(clock);
    if (done == DONE && PyDict_GET_SIZE(context)) {
        done = (merged = PyDict_Copy(context)) == NULL ? FAILED : DONE;
        for (Py_ssize_t n = 0; done == DONE && names != NULL && n < PyTuple_GET_SIZE(names); n++)
            if (PyDict_SetItem(merged, PyTuple_GET_ITEM(names, n), args[count + n])) done = FAILED;
        event.fields = (Fields){.dict = merged, .refused = not_of_structlog};
    }
    if (done == DONE) done = write_event(&way, &event, NULL);
    Py_XDECREF(clock);
    Py_XDECREF(merged);
    Py_DECREF(told);
    if (done == DONE) *result = Py_NewRef(Py_None);
    return done;
}
