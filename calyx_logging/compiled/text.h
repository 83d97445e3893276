/* JSON text: a growing buffer, and how Python values become JSON, byte for byte as orjson writes them.

   Only exact built-in types are written here: str, int of 64 bits, finite float, bool, None, and dict, list and tuple
   of these. To read them runs no Python code. For anything else `put_value` says NOT_PLAIN, and Python does it. */

#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { FAILED = -1, DONE = 0, NOT_PLAIN = 1 }; /* FAILED: a Python exception is set */

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

enum { ON_STACK = 4096, MAX_DEPTH = 16, LARGE = 1024 * 1024 };

typedef struct {
    char *start, *at, *end; /* what is written lies between start and at */
    char on_stack[ON_STACK];
} Out;

static void out_init(Out *out) {
    out->start = out->at = out->on_stack;
    out->end = out->on_stack + ON_STACK;
}

static void out_free(Out *out) {
    if (out->start != out->on_stack) PyMem_RawFree(out->start);
    out->start = out->on_stack;
}

static int out_grow(Out *out, size_t more) {
    size_t used = out->at - out->start, room = 2 * (out->end - out->start) + more;
    char *had = out->start == out->on_stack ? NULL : out->start, *new = PyMem_RawRealloc(had, room);
    if (new == NULL) {
        if (PyGILState_Check()) PyErr_NoMemory(); /* else it is the caller's to say */
        return FAILED;
    }
    if (had == NULL) memcpy(new, out->on_stack, used);
    out->start = new;
    out->at = new + used;
    out->end = new + room;
    return DONE;
}

static inline int out_room(Out *out, size_t more) {
    return (size_t)(out->end - out->at) >= more ? DONE : out_grow(out, more);
}

static inline int put_bytes(Out *out, const char *bytes, size_t count) {
    if (out_room(out, count)) return FAILED;
    memcpy(out->at, bytes, count);
    out->at += count;
    return DONE;
}

#define PUT(out, literal) put_bytes(out, literal, sizeof(literal) - 1)

/* ---------------------------------------------------------------- numbers */

static char *digits_of(char *end, uint64_t value) { /* writes backwards from end; returns the first digit */
    do *--end = '0' + value % 10;
    while (value /= 10);
    return end;
}

static int put_unsigned(Out *out, uint64_t value, int is_negative) {
    char digits[24], *first = digits_of(digits + 24, value);
    if (is_negative) *--first = '-';
    return put_bytes(out, first, digits + 24 - first);
}

static int put_int(Out *out, PyObject *value) {
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow < 0) return NOT_PLAIN;
    if (overflow > 0) {
        unsigned long long large = PyLong_AsUnsignedLongLong(value);
        if (large == (unsigned long long)-1 && PyErr_Occurred()) {
            PyErr_Clear();
            return NOT_PLAIN;
        }
        return put_unsigned(out, large, 0);
    }
    return put_unsigned(out, number < 0 ? 0 - (uint64_t)number : (uint64_t)number, number < 0);
}

static PyObject *orjson_dumps; /* for numbers with an exponent, whose form differs between its versions */

static int put_rare_float(Out *out, double number, PyObject *value) {
    char *text = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL) return FAILED;
    int result = DONE;
    if (strchr(text, 'e') == NULL) {
        result = put_bytes(out, text, strlen(text));
    } else {
        PyObject *line = PyObject_CallOneArg(orjson_dumps, value);
        result = line == NULL ? FAILED : put_bytes(out, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line));
        Py_XDECREF(line);
    }
    PyMem_Free(text);
    return result;
}

/* Most floats have few decimals. If n / 10^d, rounded to a double as division does, gives the number again, then n with
   d decimals is its shortest text, because two decimals of at most 15 digits never are the same double. */
static int put_float(Out *out, PyObject *value) {
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    double number = PyFloat_AS_DOUBLE(value), size = fabs(number);
    if (!isfinite(number)) return NOT_PLAIN;
    if (size >= 1e9 || (size < 1e-3 && size != 0)) return put_rare_float(out, number, value);
    for (int decimals = 0; decimals <= 6; decimals++) {
        double whole = rint(size * powers[decimals]);
        if (whole / powers[decimals] != size) continue;
        char digits[32], *end = digits + 32, *first = digits_of(end, (uint64_t)whole);
        while (end - first <= decimals) *--first = '0';
        if (signbit(number) && put_bytes(out, "-", 1)) return FAILED;
        if (put_bytes(out, first, end - first - decimals) || put_bytes(out, ".", 1)) return FAILED;
        return decimals ? put_bytes(out, end - decimals, decimals) : put_bytes(out, "0", 1);
    }
    return put_rare_float(out, number, value);
}

/* ---------------------------------------------------------------- strings */

static const char ESCAPES[256] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    ['"'] = '"', ['\\'] = '\\',
};

static inline char *put_escaped(char *at, unsigned char letter) {
    *at++ = '\\';
    *at++ = ESCAPES[letter];
    if (ESCAPES[letter] == 'u') {
        memcpy(at, letter < 16 ? "000" : "001", 3);
        at[3] = "0123456789abcdef"[letter & 15];
        at += 4;
    }
    return at;
}

/* Whether one of 8 bytes is a control character, a quote or a backslash (the usual test for a byte below n) */
static inline int needs_escape(uint64_t eight) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t quote = eight ^ (ones * '"'), backslash = eight ^ (ones * '\\');
    return ((((eight - ones * 0x20) & ~eight) | ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & high) != 0;
}

static inline int put_ascii(Out *out, const char *text, size_t count) {
    if (out_room(out, 6 * count + 2)) return FAILED;
    char *at = out->at;
    const char *end = text + count;
    *at++ = '"';
    while (text < end) {
        uint64_t eight;
        while (end - text >= 8) {
            memcpy(&eight, text, 8);
            if (needs_escape(eight)) break;
            memcpy(at, &eight, 8);
            text += 8;
            at += 8;
        }
        for (int few = 0; few < 8 && text < end; few++, text++) {
            if (ESCAPES[(unsigned char)*text]) at = put_escaped(at, *text);
            else *at++ = *text;
        }
    }
    *at++ = '"';
    out->at = at;
    return DONE;
}

static int put_text(Out *out, PyObject *text) {
    size_t count = PyUnicode_GET_LENGTH(text);
    if (count > LARGE) return NOT_PLAIN;
    if (PyUnicode_IS_COMPACT_ASCII(text)) return put_ascii(out, PyUnicode_DATA(text), count);
    if (out_room(out, 6 * count + 2)) return FAILED;
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    char *at = out->at;
    *at++ = '"';
    for (size_t n = 0; n < count; n++) {
        Py_UCS4 point = PyUnicode_READ(kind, data, n);
        if (point < 0x80) {
            if (ESCAPES[point]) at = put_escaped(at, (unsigned char)point);
            else *at++ = (char)point;
        } else if (point < 0x800) {
            *at++ = (char)(0xC0 | point >> 6);
            *at++ = (char)(0x80 | (point & 0x3F));
        } else if (point < 0x10000) {
            if (point >= 0xD800 && point < 0xE000) return NOT_PLAIN; /* a surrogate alone */
            *at++ = (char)(0xE0 | point >> 12);
            *at++ = (char)(0x80 | (point >> 6 & 0x3F));
            *at++ = (char)(0x80 | (point & 0x3F));
        } else {
            *at++ = (char)(0xF0 | point >> 18);
            *at++ = (char)(0x80 | (point >> 12 & 0x3F));
            *at++ = (char)(0x80 | (point >> 6 & 0x3F));
            *at++ = (char)(0x80 | (point & 0x3F));
        }
    }
    *at++ = '"';
    out->at = at;
    return DONE;
}

/* ---------------------------------------------------------------- values */

static int put_value(Out *out, PyObject *value, int depth);

static int put_items(Out *out, PyObject **items, Py_ssize_t count, int depth) {
    for (Py_ssize_t n = 0; n < count; n++) {
        int result = put_bytes(out, n ? "," : "[", 1);
        if (result == DONE) result = put_value(out, items[n], depth);
        if (result) return result;
    }
    return count ? PUT(out, "]") : PUT(out, "[]");
}

static int put_dict(Out *out, PyObject *dict, int depth) {
    PyObject *key, *value;
    Py_ssize_t position = 0;
    const char *before = "{";
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!PyUnicode_CheckExact(key)) return NOT_PLAIN;
        int result = put_bytes(out, before, 1);
        if (result == DONE) result = put_text(out, key);
        if (result == DONE) result = put_bytes(out, ":", 1);
        if (result == DONE) result = put_value(out, value, depth);
        if (result) return result;
        before = ",";
    }
    return *before == ',' ? PUT(out, "}") : PUT(out, "{}");
}

static int put_value(Out *out, PyObject *value, int depth) {
    PyTypeObject *type = Py_TYPE(value);
    if (out->at - out->start > LARGE) return NOT_PLAIN;
    if (type == &PyUnicode_Type) return put_text(out, value);
    if (type == &PyLong_Type) return put_int(out, value);
    if (type == &PyFloat_Type) return put_float(out, value);
    if (value == Py_True) return PUT(out, "true");
    if (value == Py_False) return PUT(out, "false");
    if (value == Py_None) return PUT(out, "null");
    if (depth >= MAX_DEPTH) return NOT_PLAIN;
    if (type == &PyDict_Type) return put_dict(out, value, depth + 1);
    if (type == &PyList_Type) return put_items(out, ((PyListObject *)value)->ob_item, PyList_GET_SIZE(value), depth + 1);
    if (type == &PyTuple_Type) return put_items(out, ((PyTupleObject *)value)->ob_item, PyTuple_GET_SIZE(value), depth + 1);
    return NOT_PLAIN;
}
