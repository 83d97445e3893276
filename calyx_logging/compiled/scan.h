/* One pass over whole lines of a chunk: which are events in our writers' form, and their times, `seq` and ids.

   A line is plain when it begins with the node's id and the stamped fields, in order and without escapes, ends with its
   `seq` (or has none), and is JSON (RFC 8259, UTF-8) without spaces, in which no stamped field comes twice. All others,
   control lines among them, are named for Python to read. The interpreter is released meanwhile. */

enum { DEEPEST = 100, MOST_DIGITS = 200, TIME_LENGTH = 32 };

typedef struct {
    const unsigned char *at, *end;
    int has_escape; /* in the string read last */
    int is_odd;     /* whether orjson would write something otherwise; looked for if `released` is there */
    PyThreadState **released; /* the interpreter's, for what cannot be done without it */
} Reader;

static int utf8_length(const unsigned char *at, const unsigned char *end) { /* of a character beyond ASCII; 0: none */
    unsigned char lead = *at, least = 0x80, most = 0xBF;
    int length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (!length || end - at < length) return 0;
    if (lead == 0xE0) least = 0xA0;
    if (lead == 0xED) most = 0x9F; /* surrogates */
    if (lead == 0xF0) least = 0x90;
    if (lead == 0xF4) most = 0x8F;
    if (at[1] < least || at[1] > most) return 0;
    for (int n = 2; n < length; n++)
        if (at[n] < 0x80 || at[n] > 0xBF) return 0;
    return length;
}

static int skip_string(Reader *reader) { /* from behind its quote to behind the next one; 0: no plain string */
    const unsigned char *at = reader->at, *end = reader->end;
    reader->has_escape = 0;
    for (;;) {
        uint64_t eight;
        while (end - at >= 8) {
            memcpy(&eight, at, 8);
            if (needs_escape(eight) || eight & 0x8080808080808080u) break;
            at += 8;
        }
        if (at >= end || *at < 0x20) return 0;
        if (*at == '"') {
            reader->at = at + 1;
            return 1;
        }
        if (*at >= 0x80) {
            int length = utf8_length(at, end);
            if (!length) return 0;
            at += length;
        } else if (*at == '\\') {
            reader->has_escape = 1;
            if (end - at < 2) return 0;
            if (at[1] == 'u') {
                if (end - at < 6 || ((at[2] == 'd' || at[2] == 'D') && at[3] > '7')) return 0; /* a surrogate */
                for (int n = 2; n < 6; n++)
                    if (!Py_ISXDIGIT(at[n])) return 0;
                if (memcmp(at + 2, "00", 2) || at[4] > '1' || Py_ISUPPER(at[5]) || (at[4] == '0' && strchr("89acd", at[5])))
                    reader->is_odd = 1;
                at += 6;
            } else {
                if (!strchr("\"\\/bfnrt", at[1]) || !at[1]) return 0;
                if (at[1] == '/') reader->is_odd = 1;
                at += 2;
            }
        } else {
            at++;
        }
    }
}

static int skip_digits(Reader *reader) {
    const unsigned char *first = reader->at;
    while (reader->at < reader->end && Py_ISDIGIT(*reader->at)) reader->at++;
    return reader->at > first && reader->at - first <= MOST_DIGITS;
}

/* Whether a number without an exponent, of digits before and behind the point, is what repr and orjson write: a text of
   at most 15 digits that ends in none too many is the shortest of its double. Others are compared. */
static int is_shortest(const unsigned char *first, Py_ssize_t before, Py_ssize_t behind, PyThreadState **released) {
    enum { FEW = 15, MANY = 32 };
    const unsigned char *point = first + before, *end = point + 1 + behind, *at = first;
    if (!behind) return before > 1 || *first != '0' || first[-1] != '-';
    if (end[-1] == '0') return behind == 1 && before <= FEW;
    while (at < end && (*at == '0' || *at == '.')) at++;
    Py_ssize_t digits = end - at - (at < point);
    if (digits <= FEW && at - first <= 4) return 1;
    char text[MANY];
    if (end - first >= MANY) return 0;
    memcpy(text, first, end - first);
    text[end - first] = 0;
    PyEval_RestoreThread(*released);
    char *shortest = PyOS_double_to_string(PyOS_string_to_double(text, NULL, NULL), 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    int is_same = shortest != NULL && !strcmp(shortest, text);
    if (shortest == NULL) PyErr_Clear();
    PyMem_Free(shortest);
    *released = PyEval_SaveThread();
    return is_same;
}

static int skip_number(Reader *reader) {
    if (*reader->at == '-') reader->at++;
    const unsigned char *first = reader->at;
    if (!skip_digits(reader) || (*first == '0' && reader->at - first > 1)) return 0;
    Py_ssize_t before = reader->at - first;
    if (reader->at < reader->end && *reader->at == '.') {
        reader->at++;
        if (!skip_digits(reader)) return 0;
    }
    Py_ssize_t behind = reader->at - first == before ? 0 : reader->at - first - before - 1;
    if (reader->released && !reader->is_odd) reader->is_odd = !is_shortest(first, before, behind, reader->released);
    if (reader->at < reader->end && (*reader->at == 'e' || *reader->at == 'E')) {
        reader->is_odd = 1;
        if (++reader->at < reader->end && (*reader->at == '+' || *reader->at == '-')) reader->at++;
        const unsigned char *exponent = reader->at;
        return skip_digits(reader) && reader->at - exponent <= 2; /* larger ones may be out of range */
    }
    return 1;
}

static int skip_word(Reader *reader, const char *word, size_t length) {
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length)) return 0;
    reader->at += length;
    return 1;
}

static int skip_value(Reader *reader, int depth) {
    if (reader->at >= reader->end) return 0;
    unsigned char first = *reader->at, close = first == '{' ? '}' : ']';
    if (first == '"') return reader->at++, skip_string(reader);
    if (first == '-' || Py_ISDIGIT(first)) return skip_number(reader);
    if (first == 't') return skip_word(reader, "true", 4);
    if (first == 'f') return skip_word(reader, "false", 5);
    if (first == 'n') return skip_word(reader, "null", 4);
    if ((first != '{' && first != '[') || depth >= DEEPEST) return 0;
    reader->at++;
    if (reader->at < reader->end && *reader->at == close) return reader->at++, 1;
    const unsigned char *last = NULL, *name;
    for (Py_ssize_t last_length = 0, length; ; last = name, last_length = length) {
        name = reader->at + 1;
        if (first == '{' && !(skip_word(reader, "\"", 1) && skip_string(reader) && skip_word(reader, ":", 1))) return 0;
        length = reader->at - 2 - name;
        if (first == '{' && last != NULL && reader->released) {
            int order = memcmp(last, name, last_length < length ? last_length : length);
            if (order > 0 || (order == 0 && last_length >= length)) reader->is_odd = 1;
        }
        if (first == '{' && reader->has_escape) reader->is_odd = 1;
        if (!skip_value(reader, depth + 1) || reader->at >= reader->end) return 0;
        if (*reader->at == close) return reader->at++, 1;
        if (*reader->at++ != ',') return 0;
    }
}

static int is_time(const unsigned char *at) {
    static const char form[] = "0000-00-00T00:00:00.000000+00:00";
    for (int n = 0; n < TIME_LENGTH; n++)
        if (n < 26 && form[n] == '0' ? !Py_ISDIGIT(at[n]) : at[n] != (unsigned char)form[n]) return 0;
    return 1;
}

typedef struct {
    const unsigned char *time, *id;
    Py_ssize_t id_length;
    long long seq; /* -1: none */
} Line;

static int read_seq(Reader *reader, long long *seq) {
    const unsigned char *first = reader->at;
    if (!skip_digits(reader) || reader->at - first > 18 || (*first == '0' && reader->at - first > 1)) return 0;
    for (*seq = 0; first < reader->at; first++) *seq = *seq * 10 + (*first - '0');
    return 1;
}

static int read_text(Reader *reader, const char *before, const unsigned char **text, Py_ssize_t *length) {
    if (!skip_word(reader, before, strlen(before))) return 0;
    *text = reader->at;
    if (!skip_string(reader) || reader->has_escape) return 0;
    *length = reader->at - 1 - *text;
    return *length > 0;
}

static int check_stamp(Reader *reader, Line *line) { /* id and source; no control line */
    const unsigned char *source;
    Py_ssize_t length;
    line->seq = -1;
    return read_text(reader, ",\"event_id\":\"", &line->id, &line->id_length) &&
           read_text(reader, ",\"source\":\"", &source, &length) && !(length == 13 && !memcmp(source, "calyx_logging", 13));
}

/* The rest of the line, to its last byte. */
static int check_line(Reader *reader, Line *line) {
    const unsigned char *text;
    Py_ssize_t length;
    while (reader->at < reader->end && *reader->at == ',') {
        if (!read_text(reader, ",\"", &text, &length)) return 0; /* a name that is empty, or has escapes, is rare */
        if (!skip_word(reader, ":", 1)) return 0;
        if (length == 3 && !memcmp(text, "seq", 3)) {
            if (line->seq >= 0 || !read_seq(reader, &line->seq)) return 0;
            continue;
        }
        if ((length == 7 && !memcmp(text, "node_id", 7)) || (length == 6 && !memcmp(text, "ts_utc", 6)) ||
            (length == 8 && !memcmp(text, "event_id", 8)) || (length == 6 && !memcmp(text, "source", 6)))
            return 0;
        if (!skip_value(reader, 1)) return 0;
    }
    return skip_word(reader, "}", 1) && reader->at == reader->end;
}

/* Its end alone: `,"seq":N}`. */
static int check_end(Reader *reader, Line *line) {
    const unsigned char *at = reader->end - 1;
    if (reader->end - reader->at < 8 || *at != '}') return 0;
    while (at > reader->at && Py_ISDIGIT(at[-1])) at--;
    if (at - reader->at < 7 || memcmp(at - 7, ",\"seq\":", 7)) return 0;
    reader->at = at;
    return read_seq(reader, &line->seq) && reader->at == reader->end - 1;
}

typedef struct {
    Py_ssize_t (*all)[3], count, room;
} Numbers;

static int add(Numbers *numbers, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c) {
    if (numbers->count == numbers->room) {
        Py_ssize_t room = 2 * numbers->room + 64;
        void *new = PyMem_RawRealloc(numbers->all, room * sizeof(*numbers->all));
        if (new == NULL) return FAILED;
        numbers->all = new;
        numbers->room = room;
    }
    Py_ssize_t *next = numbers->all[numbers->count++];
    next[0] = a;
    next[1] = b;
    next[2] = c;
    return DONE;
}

static PyObject *list_of(Numbers *numbers, const char *form) {
    PyObject *list = PyList_New(numbers->count);
    for (Py_ssize_t n = 0; list != NULL && n < numbers->count; n++) {
        Py_ssize_t *next = numbers->all[n];
        PyObject *tuple = Py_BuildValue(form, next[0], next[1], next[2]);
        if (tuple == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, n, tuple);
    }
    return list;
}

static PyObject *scan(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer lines;
    const char *begin;
    Py_ssize_t begins, events = 0;
    int is_whole, with_ids;
    if (!PyArg_ParseTuple(args, "y*y#pp", &lines, &begin, &begins, &is_whole, &with_ids)) return NULL;
    const char *data = lines.buf;
    Numbers runs = {0}, odd = {0}, ids = {0};
    const unsigned char *at = (const unsigned char *)data, *end = at + lines.len, *first = NULL, *last = NULL;
    int failed = 0;
    Py_BEGIN_ALLOW_THREADS
    while (at < end && !failed) {
        const unsigned char *newline = memchr(at, '\n', end - at), *stop = newline == NULL ? end : newline;
        Reader reader = {at + begins, stop, 0};
        Line line = {at + begins, NULL, 0, -1};
        int is_plain = stop - at > begins + TIME_LENGTH + 1 && stop - at <= LARGE && !memcmp(at, begin, begins) &&
                       is_time(line.time) && at[begins + TIME_LENGTH] == '"';
        reader.at += TIME_LENGTH + 1;
        is_plain = is_plain && check_stamp(&reader, &line) &&
                   (is_whole ? check_line(&reader, &line) : check_end(&reader, &line));
        if (is_plain) {
            events++;
            if (first == NULL || memcmp(line.time, first, TIME_LENGTH) < 0) first = line.time;
            if (last == NULL || memcmp(line.time, last, TIME_LENGTH) > 0) last = line.time;
            if (line.seq >= 0 && runs.count && runs.all[runs.count - 1][1] == line.seq - 1) runs.all[runs.count - 1][1]++;
            else if (line.seq >= 0) failed = add(&runs, line.seq, line.seq, 0);
            if (with_ids && !failed) failed = add(&ids, (const char *)line.id - data, line.id_length, 0);
        } else {
            failed = add(&odd, events + odd.count, (const char *)at - data, (const char *)stop - data);
        }
        at = stop + 1;
    }
    Py_END_ALLOW_THREADS
    PyObject *hashes = failed ? PyErr_NoMemory() : PyList_New(ids.count), *result = NULL;
    for (Py_ssize_t n = 0; hashes != NULL && n < ids.count; n++) {
        PyObject *id = PyUnicode_DecodeUTF8(data + ids.all[n][0], ids.all[n][1], NULL);
        PyObject *hash = id == NULL ? NULL : PyLong_FromSsize_t(PyObject_Hash(id));
        Py_XDECREF(id);
        if (hash == NULL) Py_CLEAR(hashes);
        else PyList_SET_ITEM(hashes, n, hash);
    }
    if (hashes != NULL)
        result = Py_BuildValue("nNs#s#NN", events, list_of(&runs, "(nn)"), (const char *)first, (Py_ssize_t)TIME_LENGTH,
                               (const char *)last, (Py_ssize_t)TIME_LENGTH, list_of(&odd, "(nnn)"), hashes);
    PyMem_RawFree(runs.all);
    PyMem_RawFree(odd.all);
    PyMem_RawFree(ids.all);
    PyBuffer_Release(&lines);
    return result;
}
