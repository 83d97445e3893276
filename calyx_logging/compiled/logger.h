/* The fast logger's methods, and those of structlog loggers that lead straight into an outbox. */

enum { LINES = 256 };

/* ---------------------------------------------------------------- what would be called */

/* Whether FastLogger and what is above it have the methods that they had, but for callHandlers. */
static int is_logger_stock(void) {
    static Seen seen, above;
    return has_stock(logger_class, stock_methods, &seen) &&
           has_stock((PyObject *)((PyTypeObject *)logger_class)->tp_base, stock_logger, &above);
}

static int are_callers_stock(void) { /* `capture` replaces it, and so do others */
    static Seen seen;
    return has_stock(logger_class, stock_callers, &seen);
}

static PyObject *time_time_ns; /* from Python 3.13 on logging asks it */

static int are_names_stock(void) { /* what logging looks up in its module, and in time and threading, each time */
    PyObject *name, *value;
    for (Py_ssize_t position = 0; PyDict_Next(stock_names, &position, &name, &value);)
        if (item(logging_names, name) != value) return 0;
    if (time_time_ns != NULL && item(time_names, text_time_ns) != time_time_ns) return 0;
    return item(time_names, text_time) == time_time && item(threading_names, text_get_ident) == thread_ident;
}

#if PY_VERSION_HEX >= 0x030C0000
static int watcher = -1, have_names_changed = 1;

static int note_change(PyDict_WatchEvent Py_UNUSED(event), PyObject *Py_UNUSED(dict), PyObject *Py_UNUSED(key),
                       PyObject *Py_UNUSED(value)) {
    have_names_changed = 1;
    return 0;
}

static void watch_names(void) { /* where that cannot be, they are looked up in each call */
    if (watcher < 0 && (watcher = PyDict_AddWatcher(note_change)) >= 0 &&
        (PyDict_Watch(watcher, logging_names) || PyDict_Watch(watcher, time_names) || PyDict_Watch(watcher, threading_names)))
        watcher = -1;
    PyErr_Clear();
}

static int is_stock_here(void) {
    static int known;
    if (have_names_changed || watcher < 0) {
        have_names_changed = 0;
        known = are_names_stock();
    }
    return known;
}
#else
static void watch_names(void) {}

static int is_stock_here(void) {
    static uint64_t versions[3];
    static int known;
    PyObject *const dicts[] = {logging_names, time_names, threading_names};
    int has_changed = 0;
    for (int n = 0; n < 3; n++) {
        uint64_t version = ((PyDictObject *)dicts[n])->ma_version_tag;
        has_changed |= version != versions[n];
        versions[n] = version;
    }
    if (has_changed) known = are_names_stock();
    return known;
}
#endif

/* Who would handle a record, without a step of Python code: how many, and the last of them, borrowed. */
static int find_handlers(PyObject *logger, PyObject *number, int *count, PyObject **last) {
    Py_ssize_t seen = 0;
    long level = PyLong_AsLong(number);
    *count = 0;
    for (PyObject *here = logger; here != NULL && here != Py_None;) {
        PyObject *attributes = attributes_of(here);
        if (attributes == NULL) return FAILED;
        PyObject *list = item(attributes, text_handlers), *propagates = item(attributes, text_propagate);
        PyObject *parent = item(attributes, text_parent);
        if (list == NULL || !PyList_CheckExact(list) || parent == NULL || propagates == NULL || !PyBool_Check(propagates))
            return NOT_PLAIN;
        for (Py_ssize_t n = 0; n < PyList_GET_SIZE(list); n++, seen++) {
            PyObject *handler = PyList_GET_ITEM(list, n), *least;
            if (_PyType_Lookup(Py_TYPE(handler), text_level) != NULL) return NOT_PLAIN; /* a property */
            if ((attributes = attributes_of(handler)) == NULL) return FAILED;
            least = item(attributes, text_level);
            int overflow = 0;
            if (least == NULL || !PyLong_CheckExact(least)) return NOT_PLAIN;
            long wanted = PyLong_AsLongAndOverflow(least, &overflow);
            if (overflow > 0 || (!overflow && level < wanted)) continue;
            ++*count;
            *last = handler;
        }
        here = propagates == Py_True ? parent : NULL;
    }
    return seen ? DONE : NOT_PLAIN; /* nobody at all: logging.lastResort */
}

/* Hand a record to a logger's handlers, as Logger.callHandlers does: lists and levels are read as they come. */
static int call_handlers(PyObject *logger, PyObject *number, PyObject *record) {
    int result = DONE;
    for (PyObject *here = Py_NewRef(logger), *next; here != NULL && result == DONE; here = next) {
        PyObject *attributes = PyObject_GenericGetDict(here, NULL);
        PyObject *list = attributes == NULL ? NULL : Py_XNewRef(item(attributes, text_handlers));
        for (Py_ssize_t n = 0; result == DONE && list != NULL && PyList_Check(list) && n < PyList_GET_SIZE(list); n++) {
            PyObject *handler = Py_NewRef(PyList_GET_ITEM(list, n)), *least = PyObject_GetAttr(handler, text_level);
            int is_for_it = least == NULL ? -1 : PyObject_RichCompareBool(number, least, Py_GE);
            PyObject *both[] = {handler, record}, *done = is_for_it > 0 ? PyObject_VectorcallMethod(text_handle, both, 2, NULL) : NULL;
            if (is_for_it < 0 || (is_for_it && done == NULL)) result = RAISED;
            Py_XDECREF(done);
            Py_XDECREF(least);
            Py_DECREF(handler);
        }
        PyObject *propagates = attributes == NULL ? NULL : item(attributes, text_propagate);
        next = propagates != NULL && PyObject_IsTrue(propagates) > 0 ? Py_XNewRef(item(attributes, text_parent)) : NULL;
        if (next == Py_None) Py_CLEAR(next);
        if (attributes == NULL) result = RAISED;
        Py_XDECREF(list);
        Py_XDECREF(attributes);
        Py_DECREF(here);
        if (result != DONE) Py_CLEAR(next);
    }
    return result;
}

/* ---------------------------------------------------------------- the record */

#if PY_VERSION_HEX >= 0x030D0000
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
    int is_usual = PyFloat_CheckExact(clock);
    *created = is_usual ? PyFloat_AS_DOUBLE(clock) : 0;
    Py_DECREF(clock);
    if (!is_usual) return NOT_PLAIN;
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
    PyObject *key, *value, *level_name = item(level_names, level);
    if (level_name == NULL) return NULL;
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
    for (Py_ssize_t position = 0; result == DONE && extra != NULL && PyDict_Next(extra, &position, &key, &value);)
        if (!PyUnicode_CheckExact(key) || PySet_Contains(refused_by_logging, key)) result = NOT_PLAIN; /* logging raises */
    if (result == DONE && extra != NULL && PyDict_Update(attributes, extra)) result = FAILED;
    if (result == DONE) record = ((PyTypeObject *)record_class)->tp_alloc((PyTypeObject *)record_class, 0);
    if (record != NULL && PyObject_SetAttr(record, text___dict__, attributes)) Py_CLEAR(record);
    Py_XDECREF(attributes);
    return record;
}

/* ---------------------------------------------------------------- FastLogger.info and its kin */

static int is_ours(PyObject *handler) { /* an OutboxHandler with its own `handle`, and no filter */
    PyObject *handles = _PyType_Lookup(Py_TYPE(handler), text_handle);
    PyObject *attributes = attributes_of(handler);
    int result = handles != NULL && Py_IS_TYPE(handles, shortcut_type) && ((Shortcut *)handles)->try == try_handle &&
                 attributes != NULL && !has_filters(NULL, attributes) && item(attributes, text_handle) == NULL;
    PyErr_Clear();
    return result;
}

static int log_event(PyObject *logger, Event *event, int is_alone) {
    int count = 0, result = DONE;
    PyObject *last = NULL;
    if (is_alone) result = find_handlers(logger, event->level, &count, &last);
    if (result == DONE && is_alone && count == 0) { /* logging makes the record all the same, and may raise */
        PyObject *key, *value;
        for (Py_ssize_t n = 0; event->fields.dict != NULL && PyDict_Next(event->fields.dict, &n, &key, &value);)
            if (!PyUnicode_CheckExact(key) || PySet_Contains(refused_by_logging, key)) return NOT_PLAIN;
        return DONE;
    }
    Way way;
    if (result == DONE && count == 1 && is_ours(last) && way_of(last, &way) == DONE) { /* nobody else would see it */
        PyObject *context = context_here();
        result = PyErr_Occurred() ? FAILED : put_times(NULL, &event->created);
        if (result == DONE) result = write_event(&way, event, NULL, context);
        Py_XDECREF(context);
        Py_DECREF(way.told);
        if (result != NOT_PLAIN) return result;
        result = DONE;
    }
    if (result != DONE) return result;
    PyObject *record = make_record(event->name, event->level, event->message, event->args, event->fields.dict);
    if (record == NULL) return PyErr_Occurred() ? FAILED : NOT_PLAIN;
    if (is_alone) {
        result = call_handlers(logger, event->level, record);
    } else {
        PyObject *both[] = {logger, record}, *done = PyObject_VectorcallMethod(text_handle, both, 2, NULL);
        result = done == NULL ? RAISED : DONE;
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
    if (!is_logger_stock() || (attributes = attributes_of(args[0])) == NULL) return NOT_PLAIN;
    cache = item(attributes, text__cache);
    name = item(attributes, text_name);
    if (PyDict_GET_SIZE(attributes) != 8 + (item(attributes, text_manager) != NULL) || cache == NULL ||
        !PyDict_CheckExact(cache) || name == NULL || !PyUnicode_CheckExact(name) ||
        item(attributes, text_disabled) != Py_False)
        return NOT_PLAIN; /* a logger with attributes more than logging's: one may be a method */
    if ((is_on = item(cache, shortcut->level)) == NULL) return NOT_PLAIN; /* Python finds that out, and keeps it */
    if (is_on == Py_False) {
        *result = Py_NewRef(Py_None);
        return DONE;
    }
    if (is_on != Py_True || !is_record_stock() || !is_stock_here()) return NOT_PLAIN;
    if (count == 3 && PyDict_CheckExact(args[2]) && PyDict_GET_SIZE(args[2])) {
        rest = Py_NewRef(args[2]);
    } else {
        if (count == 3 && !is_scalar(args[2]) && !PyTuple_CheckExact(args[2]) && !PyList_CheckExact(args[2])) return NOT_PLAIN;
        if ((rest = PyTuple_New(count - 2)) == NULL) return FAILED;
        for (Py_ssize_t n = 2; n < count; n++) PyTuple_SET_ITEM(rest, n - 2, Py_NewRef(args[n]));
    }
    Event event = {0, shortcut->level, name, args[1], rest, {.dict = extra, .refused = not_of_logger}};
    int is_alone = are_callers_stock() && !has_filters(NULL, attributes); /* else its own `handle` sees to it */
    hold(&event);
    Py_DECREF(rest);
    int done = log_event(args[0], &event, is_alone);
    release(&event);
    if (done == DONE) *result = Py_NewRef(Py_None);
    return done;
}

/* ---------------------------------------------------------------- structlog straight */

static int try_straight(Shortcut *shortcut, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **result) {
    if (count != 2 || !PyUnicode_CheckExact(args[1])) return NOT_PLAIN;
    PyObject *attributes = attributes_of(args[0]), *merged = NULL;
    if (attributes == NULL) return FAILED;
    PyObject *logger = item(attributes, text__logger), *bound = item(attributes, text__context);
    PyObject *chain = item(attributes, text__processors);
    if (logger == NULL || (PyObject *)Py_TYPE(logger) != straight_class || chain == NULL || !PyList_CheckExact(chain) ||
        PyList_GET_SIZE(chain) != 1 || PyList_GET_ITEM(chain, 0) != straight_end || bound == NULL || !PyDict_CheckExact(bound))
        return NOT_PLAIN;
    PyObject *methods = get(&straight_methods, logger), *here = attributes_of(logger);
    Way way;
    Event event = {0, shortcut->level, get(&straight_name, logger), args[1], NULL,
                   {.names = names, .values = args + count, .refused = not_of_structlog}};
    if (here == NULL) return FAILED;
    if (methods == NULL || item(here, shortcut->name) != item(methods, shortcut->name) || event.name == NULL ||
        !PyUnicode_CheckExact(event.name) || way_of(get(&straight_handler, logger), &way))
        return NOT_PLAIN;
    hold(&event);
    PyObject *context = context_here(), *clock = PyErr_Occurred() ? NULL : PyObject_CallNoArgs(time_time);
    int done = clock == NULL ? FAILED : PyFloat_CheckExact(clock) ? DONE : NOT_PLAIN;
    if (done == DONE) event.created = PyFloat_AS_DOUBLE(clock);
    if (done == DONE && PyDict_GET_SIZE(bound)) {
        done = (merged = PyDict_Copy(bound)) == NULL ? FAILED : DONE;
        for (Py_ssize_t n = 0; done == DONE && names != NULL && n < PyTuple_GET_SIZE(names); n++)
            if (PyDict_SetItem(merged, PyTuple_GET_ITEM(names, n), args[count + n])) done = FAILED;
        event.fields = (Fields){.dict = merged, .refused = not_of_structlog};
    }
    if (done == DONE) done = write_event(&way, &event, NULL, context);
    Py_XDECREF(clock);
    Py_XDECREF(context);
    Py_XDECREF(merged);
    release(&event);
    Py_DECREF(way.told);
    if (done == DONE) *result = Py_NewRef(Py_None);
    return done;
}
