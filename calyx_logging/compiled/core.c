/* The compiled core: the short way of a plain record from a logger into a chunk. docs/compiled.md is its guide.

   Whatever is unusual is handed back: a function says NOT_PLAIN, and the Python code whose place it takes does the work.
   So the Python code is the definition, and nothing here needs to know more than the usual case. Between taking a writer
   and putting it back no Python code runs, so no signal handler does. The interpreter's lock guards everything static
   here: there is no core for free-threaded builds (setup.py), and one interpreter of a process has it. */

#define PY_SSIZE_T_CLEAN
#include "text.h"
#include "stamp.h"
#include <structmember.h>
#ifdef _WIN32
#include <io.h>
#define write _write
#endif

enum { RAISED = 2 }; /* an exception is set, and is the caller's */

/* ---------------------------------------------------------------- what Python code tells (`use`, at the end) */

enum { NAME, MSG, ARGS, LEVELNO, EXC_INFO, EXC_TEXT, STACK_INFO, CREATED, WANTED };
static const char *const wanted[] = {"name", "msg", "args", "levelno", "exc_info", "exc_text", "stack_info", "created"};
static PyObject *wanted_names[WANTED];

static PyObject *record_class, *record_attributes; /* logging's attributes of a record, in their order */
static PyObject *not_of_record, *not_of_logger, *not_of_structlog; /* names of fields that are not plain there */
static PyObject *level_names, *process_fields, *bound_context;
static PyObject *logger_class, *stock_logger, *stock_methods, *stock_record, *stock_names, *logging_names, *time_names;
static PyObject *threading_names, *thread_ident, *threads, *thread_classes;
static PyObject *source_of, *process_name, *task_name, *record_template, *refused_by_logging, *stock_callers;
static PyObject *straight_class, *straight_end;
static int is_told; /* whether all of these have been */
static uint64_t name_lengths[128]; /* of all such names, by their first letter: a bit for each length */

typedef struct {
    PyTypeObject *type;
    Py_ssize_t offset;
} Member; /* a __slots__ member of a Python class: read without a search */

static Member pool_seats, pool_pid, seats_idle, seat_writer, writer_state, writer_limit, chunk_fd, handler_way;
static Member straight_name, straight_handler, straight_methods;

#define TEXTS(X) \
    X(message) X(asctime) X(filters) X(_CONTEXT_VARS) X(handlers) X(level) X(propagate) X(parent) X(disabled) X(_cache) \
    X(name) X(_name) X(extra) X(__dict__) X(handle) X(manager) X(_logger) X(_processors) X(_context) X(multiprocessing) X(asyncio) X(time) \
    X(time_ns) X(get_ident) X(_startTime)
#define DECLARE(name) static PyObject *text_##name;
TEXTS(DECLARE)
static PyObject *text_contextvars, *sys_modules, *deque_pop, *deque_append;
static PyTypeObject *shortcut_type;

static inline PyObject **member_of(Member *member, PyObject *object) { /* NULL for an object of another class */
    if (object == NULL || member->type == NULL || !PyObject_TypeCheck(object, member->type)) return NULL;
    return (PyObject **)((char *)object + member->offset);
}

static inline PyObject *get(Member *member, PyObject *object) { /* borrowed */
    PyObject **place = member_of(member, object);
    return place == NULL ? NULL : *place;
}

static inline PyObject *item(PyObject *dict, PyObject *key) { /* borrowed, and no exception */
    PyObject *found = PyDict_GetItemWithError(dict, key);
    if (found == NULL) PyErr_Clear();
    return found;
}

static inline PyObject *attributes_of(PyObject *object) { /* its __dict__, borrowed; NULL with an exception */
    PyObject *attributes = PyObject_GenericGetDict(object, NULL);
    Py_XDECREF(attributes); /* the object has it */
    return attributes;
}

/* ---------------------------------------------------------------- fields */

typedef struct { /* fields of a dict from `position` on, or a call's named arguments */
    PyObject *dict, *names, *const *values;
    Py_ssize_t position;
    PyObject *refused; /* names that are not plain */
} Fields;

static inline int next_field(Fields *fields, PyObject **key, PyObject **value) {
    if (fields->dict != NULL) return PyDict_Next(fields->dict, &fields->position, key, value);
    if (fields->names == NULL || fields->position >= PyTuple_GET_SIZE(fields->names)) return 0;
    *key = PyTuple_GET_ITEM(fields->names, fields->position);
    *value = fields->values[fields->position++];
    return 1;
}

static inline int check_name(PyObject *key, PyObject *refused) { /* DONE, NOT_PLAIN; FAILED: it is no field */
    if (!PyUnicode_CheckExact(key)) return NOT_PLAIN;
    Py_ssize_t length = PyUnicode_GET_LENGTH(key);
    Py_UCS4 first = length ? PyUnicode_READ_CHAR(key, 0) : 0;
    if (length >= 64 || first >= 128 || !(name_lengths[first] >> length & 1)) return DONE;
    if (PySet_Contains(refused, key)) return NOT_PLAIN;
    int is_set_by_formatters = PyUnicode_Compare(key, text_message) == 0 || PyUnicode_Compare(key, text_asctime) == 0;
    return refused == not_of_record && is_set_by_formatters ? FAILED : DONE;
}

static int put_fields(Out *out, Fields *fields, PyObject *context) {
    PyObject *key, *value;
    Fields all = {.dict = context, .refused = fields->refused};
    if (context != NULL) { /* a field of the record replaces a bound one, in its place */
        for (Py_ssize_t position = 0; PyDict_Next(context, &position, &key, &value);)
            if (check_name(key, not_of_structlog)) return NOT_PLAIN;
        while (next_field(fields, &key, &value)) {
            int checked = check_name(key, fields->refused);
            if (checked == NOT_PLAIN || (checked == DONE && PyDict_SetItem(context, key, value))) return NOT_PLAIN;
        }
        fields = &all;
    }
    while (next_field(fields, &key, &value)) {
        int result = context == NULL ? check_name(key, fields->refused) : DONE;
        if (result == FAILED) continue;
        if (result == DONE) result = put_bytes(out, ",", 1);
        if (result == DONE) result = put_text(out, key);
        if (result == DONE) result = put_bytes(out, ":", 1);
        if (result == DONE) result = put_value(out, value, 0);
        if (result != DONE) return result;
    }
    return DONE;
}

/* The fields bound here and now, as a new dict; NULL where there are none, or with an exception. */
static PyObject *context_here(void) {
    PyObject *module = item(sys_modules, text_contextvars), *context = NULL;
    int is_bound = PyDict_GET_SIZE(process_fields) > 0;
    if (module != NULL && !is_bound) {
        PyObject *variables = PyObject_GetAttr(module, text__CONTEXT_VARS);
        if (variables == NULL) PyErr_Clear();
        is_bound = variables == NULL || !PyDict_CheckExact(variables) || PyDict_GET_SIZE(variables) > 0;
        Py_XDECREF(variables);
    }
    if (!is_bound || (context = PyObject_CallNoArgs(bound_context)) == NULL) return NULL;
    PyObject *copy = PyMapping_Size(context) ? PyDict_New() : NULL;
    if (copy != NULL && PyDict_Update(copy, context)) Py_CLEAR(copy);
    Py_DECREF(context);
    return copy;
}

/* ---------------------------------------------------------------- from an event to a line */

typedef struct {
    PyObject *told;                                  /* the tuple that EventFormatter.way_to made, which has the others */
    PyObject *pool, *submit, *taker, *head, *middle; /* head, middle: bytes of the line, up to the time and the level */
    Py_ssize_t most;                                 /* bytes of a line */
} Way;

typedef struct {
    double created;
    PyObject *level, *name, *message, *args;
    Fields fields;
} Event;

static int way_of(PyObject *handler, Way *way) { /* the caller releases way->told, because other code may replace it */
    PyObject *told = get(&handler_way, handler);
    if (told == NULL || !PyTuple_CheckExact(told) || PyTuple_GET_SIZE(told) != 6) return NOT_PLAIN;
    PyObject **parts = &PyTuple_GET_ITEM(told, 0);
    *way = (Way){Py_NewRef(told), parts[0], parts[1], parts[2], parts[3], parts[4], PyLong_AsSsize_t(parts[5])};
    return DONE;
}

static int has_filters(PyObject *object, PyObject *names) { /* names: its attributes, where they are at hand */
    PyObject *filters = names ? Py_XNewRef(item(names, text_filters)) : PyObject_GetAttr(object, text_filters);
    int is_empty = filters != NULL && PyList_CheckExact(filters) && PyList_GET_SIZE(filters) == 0;
    Py_XDECREF(filters);
    PyErr_Clear();
    return !is_empty;
}

static int put_level(Out *out, PyObject *number) {
    static const char *const names[] = {"\"debug\"", "\"info\"", "\"warning\"", "\"error\"", "\"critical\""};
    if (!PyLong_CheckExact(number)) return NOT_PLAIN;
    int overflow;
    long value = PyLong_AsLongAndOverflow(number, &overflow);
    if (!overflow && value >= 10 && value <= 50 && value % 10 == 0)
        return put_bytes(out, names[value / 10 - 1], strlen(names[value / 10 - 1]));
    PyObject *name = item(level_names, number);
    if (name == NULL || !PyUnicode_CheckExact(name)) return NOT_PLAIN;
    PyObject *lower = PyObject_CallMethod(name, "lower", NULL);
    int result = lower == NULL ? FAILED : put_text(out, lower);
    Py_XDECREF(lower);
    return result;
}

static int is_scalar(PyObject *value) {
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) || value == Py_None ||
           PyBool_Check(value);
}

/* The message with its arguments, as a new text; NULL where it is not plain, or with an exception. */
static PyObject *text_of(PyObject *message, PyObject *args) {
    if (!PyUnicode_CheckExact(message)) return NULL;
    if (args == NULL || args == Py_None || (PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 0)) return Py_NewRef(message);
    PyObject *key, *value;
    Py_ssize_t position = 0;
    if (PyTuple_CheckExact(args)) {
        for (; position < PyTuple_GET_SIZE(args); position++)
            if (!is_scalar(PyTuple_GET_ITEM(args, position))) return NULL;
    } else {
        if (!PyDict_CheckExact(args) || PyDict_GET_SIZE(args) == 0) return NULL;
        while (PyDict_Next(args, &position, &key, &value))
            if (!PyUnicode_CheckExact(key) || !is_scalar(value)) return NULL;
    }
    PyObject *text = PyUnicode_Format(message, args); /* which lets signal handlers run */
    if (text == NULL && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear(); /* they do not fit */
    return text;
}

static int put_event(Out *out, Way *way, Event *event, const char *id, PyObject *context) { /* all but the line's end */
    PyObject *text = text_of(event->message, event->args);
    int result = text != NULL ? DONE : PyErr_Occurred() ? FAILED : NOT_PLAIN;
    if (result == DONE) result = put_bytes(out, PyBytes_AS_STRING(way->head), PyBytes_GET_SIZE(way->head));
    if (result == DONE) result = put_moment(out, event->created);
    if (result == DONE) result = PUT(out, "\",\"event_id\":\"");
    if (result == DONE) result = put_bytes(out, id, ID_LENGTH);
    if (result == DONE) result = put_bytes(out, PyBytes_AS_STRING(way->middle), PyBytes_GET_SIZE(way->middle));
    if (result == DONE) result = put_level(out, event->level);
    if (result == DONE) result = PUT(out, ",\"logger\":");
    if (result == DONE) result = put_text(out, event->name);
    if (result == DONE) result = PUT(out, ",\"message\":");
    if (result == DONE) result = put_text(out, text);
    if (result == DONE) result = put_fields(out, &event->fields, context);
    Py_XDECREF(text);
    Py_ssize_t length = out->at - out->start;
    return result == DONE && (length + 33 > way->most || length >= LARGE) ? NOT_PLAIN : result;
}

/* ---------------------------------------------------------------- from a line to the chunk */

static int hand_on(Way *way, Out *out) { /* Python keeps it: it begins writers, rolls, goes round errors, counts losses */
    if (PUT(out, "}")) return FAILED;
    PyObject *line = PyBytes_FromStringAndSize(out->start, out->at - out->start), *done = NULL;
    if (line != NULL) done = PyObject_CallOneArg(way->submit, line);
    Py_XDECREF(line);
    Py_XDECREF(done);
    return done == NULL ? FAILED : DONE;
}

static int keep(Way *way, Out *out) {
    PyObject *after = PyTuple_New(4); /* first, because a collection of garbage may log */
    if (after == NULL) return FAILED;
    PyObject *idle = get(&seats_idle, get(&pool_seats, way->pool)), *pid = get(&pool_pid, way->pool), *seat = NULL;
    if (idle != NULL && pid != NULL && PyLong_AsLong(pid) == process_id) {
        Py_INCREF(idle);
        if ((seat = PyObject_CallOneArg(deque_pop, idle)) == NULL) Py_DECREF(idle);
    }
    if (seat == NULL) { /* no writer is idle, or this is a forked child */
        PyErr_Clear();
        Py_DECREF(after);
        return hand_on(way, out);
    }
    PyObject *writer = get(&seat_writer, seat), **state = member_of(&writer_state, writer), *chunk = NULL, *fd = NULL;
    PyObject **limit = member_of(&writer_limit, writer);
    int is_usual = state != NULL && *state != NULL && limit != NULL && *limit != NULL && PyTuple_CheckExact(*state) &&
                   PyTuple_GET_SIZE(*state) == 4 && (fd = get(&chunk_fd, chunk = PyTuple_GET_ITEM(*state, 0))) != NULL;
    size_t without_end = out->at - out->start;
    if (is_usual) {
        long long seq = PyLong_AsLongLong(PyTuple_GET_ITEM(*state, 1)), size = PyLong_AsLongLong(PyTuple_GET_ITEM(*state, 2));
        long long most = PyLong_AsLongLong(*limit), written = -1;
        int number = (int)PyLong_AsLong(fd);
        is_usual = PUT(out, ",\"seq\":") == DONE && put_unsigned(out, seq, 0) == DONE && PUT(out, "}\n") == DONE;
        long long length = out->at - out->start;
        PyObject *next = PyLong_FromLongLong(seq + 1), *sum = PyLong_FromLongLong(size + length), *none = PyLong_FromLong(-1);
        PyTuple_SET_ITEM(after, 0, Py_NewRef(chunk));
        PyTuple_SET_ITEM(after, 1, next);
        PyTuple_SET_ITEM(after, 2, sum);
        PyTuple_SET_ITEM(after, 3, Py_NewRef(PyTuple_GET_ITEM(*state, 3)));
        is_usual = is_usual && next != NULL && sum != NULL && none != NULL && size + length <= most && number >= 0;
        if (is_usual) {
            Py_BEGIN_ALLOW_THREADS
            written = write(number, out->start, (unsigned)length);
            Py_END_ALLOW_THREADS
            is_usual = written == length;
            PyObject **place = is_usual ? state : limit; /* after a short write, whoever has it next mends it first */
            PyObject *before = *place;
            *place = Py_NewRef(is_usual ? after : none);
            Py_DECREF(before);
        }
        Py_XDECREF(none);
        out->at = out->start + without_end;
    }
    PyErr_Clear();
    PyObject *both[] = {idle, seat}, *none = PyObject_Vectorcall(deque_append, both, 2, NULL);
    Py_XDECREF(none); /* where there is no memory for that, housekeeping finds the writer */
    PyErr_Clear();
    Py_DECREF(after);
    Py_DECREF(seat);
    Py_DECREF(idle);
    return is_usual ? DONE : hand_on(way, out);
}

static int has_mark(PyObject *record) { return slot_of(record) != NULL || lasting_mark(record) != NULL; }

/* Write an event. The parts of it and of the way are the caller's own references: other code may run in here. */
static int write_event(Way *way, Event *event, PyObject *record, PyObject *context) { /* record: to be marked, if any */
    char id[ID_LENGTH];
    Out out;
    out_init(&out);
    Slot *slot = NULL;
    int result = new_id(id, event->created);
    if (result == DONE) result = put_event(&out, way, event, id, context);
    if (result == DONE && record != NULL) {
        if (has_mark(record)) result = NOT_PLAIN; /* another thread was there meanwhile */
        else if (PyErr_Occurred() || (slot = slot_for(record)) == NULL) result = FAILED;
        else {
            slot->taker = Py_NewRef(way->taker);
            memcpy(slot->id, id, ID_LENGTH);
        }
    }
    if (result == DONE) result = keep(way, &out);
    if (result == FAILED && slot != NULL && (slot = slot_of(record)) != NULL) slot_empty(slot, 0); /* Python takes it */
    out_free(&out);
    return result;
}

static void hold(Event *event) {
    Py_INCREF(event->level);
    Py_INCREF(event->name);
    Py_INCREF(event->message);
    Py_XINCREF(event->args);
}

static void release(Event *event) {
    Py_DECREF(event->level);
    Py_DECREF(event->name);
    Py_DECREF(event->message);
    Py_XDECREF(event->args);
}

/* ---------------------------------------------------------------- OutboxHandler.handle */

typedef struct {
    unsigned version; /* of the class, when it was looked at: it changes with every change of it or its bases */
    int has_it;
} Seen;

static int has_stock(PyObject *class, PyObject *stock, Seen *seen) { /* whether a class still has these, by name */
    unsigned now = ((PyTypeObject *)class)->tp_version_tag;
    if (now && now == seen->version) return seen->has_it;
    PyObject *name, *value;
    seen->has_it = 1;
    for (Py_ssize_t position = 0; seen->has_it && PyDict_Next(stock, &position, &name, &value);) {
        PyObject *found = PyObject_GetAttr(class, name);
        Py_XDECREF(found);
        seen->has_it = found == value;
        if (found == NULL) PyErr_Clear();
    }
    seen->version = ((PyTypeObject *)class)->tp_version_tag;
    return seen->has_it;
}

static int is_record_stock(void) {
    static Seen seen;
    return has_stock(record_class, stock_record, &seen);
}

static int read_record(Event *event, PyObject *attributes) {
    PyObject *key, *values[WANTED];
    Py_ssize_t count = PyTuple_GET_SIZE(record_attributes), position = count - 1;
    /* logging's attributes come first, so that the last of them is in this place, unless something was deleted */
    if (!PyDict_Next(attributes, &position, &key, NULL) || key != PyTuple_GET_ITEM(record_attributes, count - 1)) {
        position = 0;
        for (Py_ssize_t n = 0; n < count; n++)
            if (!PyDict_Next(attributes, &position, &key, NULL) || key != PyTuple_GET_ITEM(record_attributes, n))
                return NOT_PLAIN;
    }
    for (int n = 0; n < WANTED; n++)
        if ((values[n] = item(attributes, wanted_names[n])) == NULL) return NOT_PLAIN;
    if (values[EXC_INFO] != Py_None || values[EXC_TEXT] != Py_None || values[STACK_INFO] != Py_None ||
        !PyUnicode_CheckExact(values[NAME]) || !PyFloat_CheckExact(values[CREATED]))
        return NOT_PLAIN;
    *event = (Event){PyFloat_AS_DOUBLE(values[CREATED]), values[LEVELNO], values[NAME], values[MSG], values[ARGS],
                     {.dict = attributes, .position = position, .refused = not_of_record}};
    return DONE;
}

static int take(Way *way, PyObject *record) {
    Slot *slot = slot_of(record);
    PyObject *mark = slot == NULL ? lasting_mark(record) : slot->mark;
    if (PyErr_Occurred()) return FAILED;
    if (mark != NULL || slot != NULL) {
        int has_taken = mark != NULL          ? PyDict_Contains(mark, way->taker)
                        : slot->taker == NULL ? 0
                                              : PyObject_RichCompareBool(slot->taker, way->taker, Py_EQ);
        return has_taken == 1 ? DONE : has_taken < 0 ? FAILED : NOT_PLAIN; /* another handler has: Python does it */
    }
    PyObject *context = context_here(), *attributes = PyErr_Occurred() ? NULL : PyObject_GenericGetDict(record, NULL);
    Event event;
    int result = attributes == NULL ? FAILED : read_record(&event, attributes);
    if (result == DONE) {
        hold(&event);
        result = write_event(way, &event, record, context);
        release(&event);
    }
    Py_XDECREF(attributes);
    Py_XDECREF(context);
    return result;
}

typedef struct Shortcut Shortcut;

static int try_handle(Shortcut *shortcut, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **result);

/* ---------------------------------------------------------------- shortcuts

   A shortcut stands in a class in the place of a Python method, and calls it wherever the short way does not lead. */

struct Shortcut {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *python, *owner, *name, *level; /* the method, or where it is to be looked up, since it may be replaced */
    PyObject *weak_references;
    int (*try)(Shortcut *shortcut, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **result);
};

static PyObject *method_of(Shortcut *shortcut) {
    return shortcut->owner == NULL ? Py_NewRef(shortcut->python) : PyObject_GetAttr(shortcut->owner, shortcut->name);
}

static PyObject *shortcut_call(PyObject *self, PyObject *const *args, size_t count, PyObject *names) {
    Shortcut *shortcut = (Shortcut *)self;
    PyObject *result = NULL, *method;
    int done = is_told ? shortcut->try(shortcut, args, PyVectorcall_NARGS(count), names, &result) : NOT_PLAIN;
    if (done == DONE) return result;
    if (done == RAISED) return NULL;
    if (done == FAILED && !PyErr_ExceptionMatches(PyExc_Exception)) return NULL; /* Ctrl-C in code that it called */
    PyErr_Clear();
    if ((method = method_of(shortcut)) == NULL) return NULL;
    result = PyObject_Vectorcall(method, args, count, names);
    Py_DECREF(method);
    return result;
}

static int try_handle(Shortcut *Py_UNUSED(shortcut), PyObject *const *args, Py_ssize_t count, PyObject *names,
                      PyObject **result) {
    Way way;
    if (count != 2 || names != NULL || (PyObject *)Py_TYPE(args[1]) != record_class || !is_record_stock() ||
        has_filters(args[0], NULL) || way_of(args[0], &way))
        return NOT_PLAIN;
    int done = take(&way, args[1]);
    Py_DECREF(way.told);
    if (done == DONE) *result = Py_NewRef(Py_True);
    return done;
}

static PyObject *shortcut_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type)) {
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyObject *shortcut_getattro(PyObject *self, PyObject *name) { /* what it has not, the Python method has */
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) return found;
    PyErr_Clear();
    PyObject *method = method_of((Shortcut *)self);
    found = method == NULL ? NULL : PyObject_GetAttr(method, name);
    Py_XDECREF(method);
    return found;
}

static PyObject *shortcut_wrapped(PyObject *self, void *name) { /* __wrapped__, and the method's __doc__ */
    PyObject *method = method_of((Shortcut *)self);
    PyObject *found = method == NULL || name == NULL ? Py_XNewRef(method) : PyObject_GetAttrString(method, name);
    Py_XDECREF(method);
    return found;
}

static PyObject *shortcut_reduce(PyObject *self, PyObject *Py_UNUSED(none)) { /* a copy is the thing itself */
    return PyObject_GetAttrString(self, "__qualname__");
}

static void shortcut_dealloc(PyObject *self) {
    Shortcut *shortcut = (Shortcut *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (shortcut->weak_references != NULL) PyObject_ClearWeakRefs(self);
    Py_XDECREF(shortcut->python);
    Py_XDECREF(shortcut->owner);
    Py_XDECREF(shortcut->name);
    Py_XDECREF(shortcut->level);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef shortcut_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Shortcut, call), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Shortcut, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef shortcut_getset[] = {{"__wrapped__", shortcut_wrapped, NULL, NULL, NULL},
                                        {"__doc__", shortcut_wrapped, NULL, NULL, "__doc__"},
                                        {NULL, NULL, NULL, NULL, NULL}};
static PyMethodDef shortcut_methods[] = {{"__reduce__", shortcut_reduce, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot shortcut_slots[] = {{Py_tp_call, PyVectorcall_Call},      {Py_tp_descr_get, shortcut_get},
                                       {Py_tp_getattro, shortcut_getattro}, {Py_tp_members, shortcut_members},
                                       {Py_tp_getset, shortcut_getset},     {Py_tp_methods, shortcut_methods},
                                       {Py_tp_dealloc, shortcut_dealloc},   {0, NULL}};
static PyType_Spec shortcut_spec = {"calyx_logging.compiled._core.Shortcut", sizeof(Shortcut), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
                                    shortcut_slots};

#include "logger.h"
#include "scan.h"
#include "rows.h"
#include "module.h"
