/* Rows of the hub's table from whole lines of a chunk: for each plain line (see scan.h) the columns of query/rows.py.

   A line of which Python's JSON would be another text than its own (escapes and numbers that orjson writes otherwise,
   names that are twice or, in inner objects, not in order) is left to Python, and so is what is rare. So the text of a
   field serves as its value, and the hash of a line's fields in order is the one that Python makes. */

enum { MOST_FIELDS = 256, LONG_RUN = 18, HASH_BYTES = 16 };

/* ---------------------------------------------------------------- the hash: BLAKE2b (RFC 7693), of 16 bytes */

typedef struct {
    uint64_t state[8], done;
    unsigned char block[128];
    size_t used;
} Blake;

static const uint64_t BLAKE_IV[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
                                     0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};
static const unsigned char BLAKE_ORDER[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

static inline uint64_t turned(uint64_t word, int bits) { return word >> bits | word << (64 - bits); }

static void blake_block(Blake *blake, int is_last) {
    uint64_t v[16], m[16];
    for (int n = 0; n < 8; n++) {
        v[n] = blake->state[n];
        v[n + 8] = BLAKE_IV[n];
    }
    v[12] ^= blake->done;
    if (is_last) v[14] = ~v[14];
    memcpy(m, blake->block, 128);
#define MIX(a, b, c, d, x, y)                   \
    v[a] += v[b] + m[order[x]];                 \
    v[d] = turned(v[d] ^ v[a], 32);             \
    v[c] += v[d];                               \
    v[b] = turned(v[b] ^ v[c], 24);             \
    v[a] += v[b] + m[order[y]];                 \
    v[d] = turned(v[d] ^ v[a], 16);             \
    v[c] += v[d];                               \
    v[b] = turned(v[b] ^ v[c], 63);
#ifdef __GNUC__
#pragma GCC unroll 12
#endif
    for (int round = 0; round < 12; round++) {
        const unsigned char *order = BLAKE_ORDER[round];
        MIX(0, 4, 8, 12, 0, 1) MIX(1, 5, 9, 13, 2, 3) MIX(2, 6, 10, 14, 4, 5) MIX(3, 7, 11, 15, 6, 7)
        MIX(0, 5, 10, 15, 8, 9) MIX(1, 6, 11, 12, 10, 11) MIX(2, 7, 8, 13, 12, 13) MIX(3, 4, 9, 14, 14, 15)
    }
#undef MIX
    for (int n = 0; n < 8; n++) blake->state[n] ^= v[n] ^ v[n + 8];
}

static void blake_init(Blake *blake) {
    memcpy(blake->state, BLAKE_IV, sizeof(BLAKE_IV));
    blake->state[0] ^= 0x01010000u ^ HASH_BYTES;
    blake->done = blake->used = 0;
}

static void blake_add(Blake *blake, const void *bytes, size_t count) {
    const unsigned char *at = bytes;
    while (count) {
        if (blake->used == 128) {
            blake->done += 128;
            blake_block(blake, 0);
            blake->used = 0;
        }
        size_t some = 128 - blake->used < count ? 128 - blake->used : count;
        memcpy(blake->block + blake->used, at, some);
        blake->used += some;
        at += some;
        count -= some;
    }
}

static void blake_hex(Blake *blake, char *hex) {
    unsigned char digest[HASH_BYTES];
    blake->done += blake->used;
    memset(blake->block + blake->used, 0, 128 - blake->used);
    blake_block(blake, 1);
    memcpy(digest, blake->state, HASH_BYTES);
    for (int n = 0; n < HASH_BYTES; n++) {
        *hex++ = "0123456789abcdef"[digest[n] >> 4];
        *hex++ = "0123456789abcdef"[digest[n] & 15];
    }
}

/* ---------------------------------------------------------------- columns */

enum {
    EVENT_ID, SOURCE, LEVEL, LOGGER, MESSAGE, CONTROL, RUN_ID, RUN_INSTANCE_ID, SUITE, STAGE, CASE_ID, DECISION_TYPE,
    SCORE_TEXT, MODEL, OUTCOME, EXIT_STATUS, RESUMED_AS, EXCEPTION_TYPE, REST, IDENTITY, TEXT_COLUMNS
};
enum { TS = TEXT_COLUMNS, SEQ, CASES_EXPECTED, LINE, SCORE, DURATION, PASSED, COLUMNS };

/* How a field becomes a column: as text only if it is one; as text, JSON if it is none; likewise, and it stays in rest */
enum { IF_TEXT, AS_TEXT, AS_RESULT, AS_NUMBER, AS_PASSED, AS_WHOLE, IF_RESULT_TEXT, NOT_HERE };
static const struct {
    const char *name;
    int length, way, column;
} columns[] = {
    {"level", 5, IF_TEXT, LEVEL}, {"suite", 5, AS_TEXT, SUITE}, {"stage", 5, AS_TEXT, STAGE},
    {"score", 5, AS_TEXT, SCORE_TEXT}, {"model", 5, AS_RESULT, MODEL}, {"logger", 6, IF_TEXT, LOGGER},
    {"run_id", 6, AS_TEXT, RUN_ID}, {"passed", 6, AS_PASSED, PASSED}, {"message", 7, IF_TEXT, MESSAGE},
    {"control", 7, IF_TEXT, CONTROL}, {"case_id", 7, AS_TEXT, CASE_ID}, {"outcome", 7, AS_RESULT, OUTCOME},
    {"exception", 9, NOT_HERE, 0}, {"duration_s", 10, AS_NUMBER, DURATION}, {"exit_status", 11, AS_RESULT, EXIT_STATUS},
    {"resumed_as", 10, AS_RESULT, RESUMED_AS},
    {"decision_type", 13, AS_TEXT, DECISION_TYPE}, {"cases_expected", 14, AS_WHOLE, CASES_EXPECTED},
    {"exception_type", 14, IF_RESULT_TEXT, EXCEPTION_TYPE}, {"run_instance_id", 15, AS_TEXT, RUN_INSTANCE_ID},
};

typedef struct {
    const unsigned char *name, *value;
    Py_ssize_t name_length, length;
    int is_in_rest;
} Field;

typedef struct {
    Py_ssize_t count, room;       /* rows, and how many there may be */
    Out texts[TEXT_COLUMNS];
    int32_t *ends[TEXT_COLUMNS];  /* one more than rows: where each text begins, and the next one */
    int64_t *wholes[4];           /* TS, SEQ, CASES_EXPECTED, LINE */
    double *numbers[2];           /* SCORE, DURATION */
    unsigned char *passed, *valid[COLUMNS];
    PyThreadState *released;      /* the interpreter's, while rows are read */
} Table;

static inline void set_bit(unsigned char *bits, Py_ssize_t at) { bits[at >> 3] |= (unsigned char)(1 << (at & 7)); }

/* A string's text, between its quotes; all escapes are those that orjson writes. */
static int put_unescaped(Out *out, const unsigned char *at, Py_ssize_t length) {
    const unsigned char *end = at + length;
    if (out_room(out, length)) return FAILED;
    while (at < end) {
        const unsigned char *escape = memchr(at, '\\', end - at), *stop = escape == NULL ? end : escape;
        memcpy(out->at, at, stop - at);
        out->at += stop - at;
        at = stop;
        if (escape == NULL) break;
        const char *found = strchr("bfnrt", at[1]);
        if (at[1] == 'u') {
            char low = (char)at[5];
            *out->at++ = (char)((at[4] - '0') << 4 | (low <= '9' ? low - '0' : low - 'a' + 10));
            at += 6;
        } else {
            *out->at++ = found == NULL ? (char)at[1] : "\b\f\n\r\t"[found - "bfnrt"];
            at += 2;
        }
    }
    return DONE;
}

static int put_column(Table *table, int column, const unsigned char *value, Py_ssize_t length) { /* JSON, or a string */
    set_bit(table->valid[column], table->count);
    if (*value == '"') return put_unescaped(&table->texts[column], value + 1, length - 2);
    return put_bytes(&table->texts[column], (const char *)value, length);
}

/* Days since 1970 of a date of the Gregorian calendar (the usual sum over eras of 400 years that begin in March). */
static int64_t days_of(int year, int month, int day) {
    year -= month <= 2;
    int era = year / 400, of_era = year % 400, of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097LL + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int number_at(const unsigned char *at, int digits) {
    int number = 0;
    while (digits--) number = number * 10 + (*at++ - '0');
    return number;
}

static int read_moment(const unsigned char *at, int64_t *micros) { /* of a text that `is_time`; 0: no such day */
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = number_at(at, 4), month = number_at(at + 5, 2), day = number_at(at + 8, 2), hour = number_at(at + 11, 2);
    int minute = number_at(at + 14, 2), second = number_at(at + 17, 2);
    if (!year || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return 0;
    int is_leap = year % 4 == 0 && (year % 100 || year % 400 == 0);
    if (day < 1 || day > lengths[month - 1] + (month == 2 && is_leap)) return 0;
    *micros = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *micros = *micros * 1000000 + number_at(at + 20, 6);
    return 1;
}

/* The number of a JSON number or of a string that holds one. DONE, FAILED; NOT_PLAIN: Python has to look at it. */
static int read_double(Table *table, const unsigned char *value, Py_ssize_t length, double *number, int *is_number) {
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    char text[64];
    *is_number = 0;
    if (*value == '"') {
        value++;
        length -= 2;
        for (Py_ssize_t n = 0; n < length; n++)
            if (!Py_ISDIGIT(value[n]) && !strchr("+-.eE", value[n])) 
                return Py_ISALPHA(*value) ? DONE : NOT_PLAIN; /* a word, or no finite number; rare ones are Python's */
    } else if (*value != '-' && !Py_ISDIGIT(*value)) {
        return DONE;
    }
    if (!length) return DONE;
    if (length >= (Py_ssize_t)sizeof(text)) return NOT_PLAIN;
    int64_t digits = 0;
    Py_ssize_t sign = *value == '-', at = sign, behind = 0, is_behind = 0;
    for (; at < length && (Py_ISDIGIT(value[at]) || (value[at] == '.' && !is_behind)); at++) {
        if (value[at] == '.') is_behind = 1;
        else digits = digits * 10 + (value[at] - '0'), behind += is_behind;
        if (at > 15) break;
    }
    if (at == length && at > sign && value[sign] != '.' && value[at - 1] != '.') {
        *number = (double)digits / powers[behind]; /* both are exact, so this is the nearest double */
        if (sign) *number = -*number;
        *is_number = 1;
        return DONE;
    }
    memcpy(text, value, length);
    text[length] = 0;
    char *end;
    PyEval_RestoreThread(table->released);
    *number = PyOS_string_to_double(text, &end, NULL);
    int is_failed = *number == -1.0 && PyErr_Occurred();
    if (is_failed) PyErr_Clear();
    table->released = PyEval_SaveThread();
    *is_number = !is_failed && *end == 0 && isfinite(*number);
    return DONE;
}

static int put_field(Table *table, Field *field, int way, int column) {
    const unsigned char *value = field->value;
    int is_text = *value == '"', is_null = *value == 'n', is_number, result;
    double number;
    if (way == NOT_HERE) return NOT_PLAIN;
    if (way == IF_TEXT || way == IF_RESULT_TEXT) {
        if (!is_text) return DONE;
        field->is_in_rest = way == IF_RESULT_TEXT;
        return put_column(table, column, value, field->length);
    }
    if (is_null) return DONE;
    if (way == AS_TEXT || way == AS_RESULT) {
        field->is_in_rest = way == AS_RESULT;
        if (column == SCORE_TEXT) {
            if ((result = read_double(table, value, field->length, &number, &is_number))) return result;
            if (is_number) {
                table->numbers[0][table->count] = number;
                set_bit(table->valid[SCORE], table->count);
            }
        }
        return put_column(table, column, value, field->length);
    }
    if (way == AS_PASSED) {
        int skip = is_text, length = (int)field->length - 2 * skip;
        int is_true = length == 4 && !PyOS_strnicmp((const char *)value + skip, "true", 4);
        if (is_true) set_bit(table->passed, table->count);
        if (is_true || (length == 5 && !PyOS_strnicmp((const char *)value + skip, "false", 5)))
            set_bit(table->valid[PASSED], table->count);
        return DONE;
    }
    if ((result = read_double(table, value, field->length, &number, &is_number)) || !is_number) return result;
    if (way == AS_NUMBER && number >= 0 && number <= 1e12) {
        table->numbers[1][table->count] = number;
        set_bit(table->valid[DURATION], table->count);
    } else if (way == AS_WHOLE && number == floor(number) && fabs(number) < 9223372036854775808.0) {
        int64_t whole = 0, sign = *value == '-'; /* digits: fewer than 18 in a row */
        Py_ssize_t at = sign;
        for (; at < field->length && Py_ISDIGIT(value[at]); at++) whole = whole * 10 + (value[at] - '0');
        table->wholes[2][table->count] = at < field->length ? (int64_t)number : sign ? -whole : whole;
        set_bit(table->valid[CASES_EXPECTED], table->count);
    }
    return DONE;
}

/* ---------------------------------------------------------------- one line */

static int has_long_run(const unsigned char *at, const unsigned char *end) { /* of digits: Python keeps them as written */
    for (const unsigned char *probe = at + LONG_RUN - 1; probe < end; probe += LONG_RUN) {
        if (!Py_ISDIGIT(*probe)) continue;
        const unsigned char *first = probe, *last = probe;
        while (first > at && Py_ISDIGIT(first[-1])) first--;
        while (last + 1 < end && Py_ISDIGIT(last[1])) last++;
        if (last - first + 1 >= LONG_RUN) return 1;
    }
    return 0;
}

static int is_before(const Field *a, const Field *b) {
    Py_ssize_t least = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order = memcmp(a->name, b->name, least);
    return order ? order < 0 : a->name_length < b->name_length;
}

static int put_identity(Table *table, Field *fields, int count) { /* NOT_PLAIN: a name is there twice */
    Field *sorted[MOST_FIELDS];
    Blake blake;
    char hex[2 * HASH_BYTES];
    for (int n = 0; n < count; n++) {
        int at = n;
        for (; at && is_before(&fields[n], sorted[at - 1]); at--) sorted[at] = sorted[at - 1];
        if (at && !is_before(sorted[at - 1], &fields[n])) return NOT_PLAIN;
        sorted[at] = &fields[n];
    }
    blake_init(&blake);
    for (int n = 0; n < count; n++) {
        blake_add(&blake, n ? "," : "{", 1);
        blake_add(&blake, sorted[n]->name - 1, sorted[n]->name_length + 3); /* with its quotes and the colon */
        blake_add(&blake, sorted[n]->value, sorted[n]->length);
    }
    blake_add(&blake, "}", 1);
    blake_hex(&blake, hex);
    set_bit(table->valid[IDENTITY], table->count);
    return put_bytes(&table->texts[IDENTITY], hex, sizeof(hex));
}

static int put_rest(Table *table, const Field *fields, int count) {
    Out *out = &table->texts[REST];
    const char *before = "{";
    for (int n = 0; n < count; n++) {
        if (!fields[n].is_in_rest) continue;
        if (put_bytes(out, before, 1) || put_bytes(out, (const char *)fields[n].name - 1, fields[n].name_length + 3) ||
            put_bytes(out, (const char *)fields[n].value, fields[n].length))
            return FAILED;
        before = ",";
    }
    if (*before == '{') return DONE;
    set_bit(table->valid[REST], table->count);
    return PUT(out, "}");
}

/* Read a line, and put its row behind the others. NOT_PLAIN: it is left to Python, and what was put is taken back. */
static int put_row(Table *table, const unsigned char *at, const unsigned char *end, Py_ssize_t begins) {
    Field fields[MOST_FIELDS];
    Line line = {at + begins, NULL, 0, -1};
    Reader reader = {at + begins + TIME_LENGTH + 1, end, 0, 0, &table->released};
    int count = 4, result;
    int64_t moment;
    if (end - at <= begins + TIME_LENGTH + 1 || end - at > LARGE || at[begins + TIME_LENGTH] != '"') return NOT_PLAIN;
    if (!is_time(line.time) || !read_moment(line.time, &moment) || !check_stamp(&reader, &line)) return NOT_PLAIN;
    if (has_long_run(at, end)) return NOT_PLAIN;
    const unsigned char *source = line.id + line.id_length + 2;
    fields[0] = (Field){at + 2, at + 11, 7, begins - 22, 0};
    fields[1] = (Field){at + begins - 9, line.time - 1, 6, TIME_LENGTH + 2, 0};
    fields[2] = (Field){line.id - 11, line.id - 1, 8, line.id_length + 2, 0};
    fields[3] = (Field){source + 1, source + 9, 6, reader.at - source - 9, 0};
    if (put_column(table, EVENT_ID, fields[2].value, fields[2].length) ||
        put_column(table, SOURCE, fields[3].value, fields[3].length))
        return FAILED;
    while (reader.at < end && *reader.at == ',') {
        Field *next = &fields[count];
        if (count == MOST_FIELDS || !read_text(&reader, ",\"", &next->name, &next->name_length)) return NOT_PLAIN;
        if (!skip_word(&reader, ":", 1)) return NOT_PLAIN;
        next->value = reader.at;
        if (next->name_length == 3 && !memcmp(next->name, "seq", 3)) {
            if (line.seq >= 0 || !read_seq(&reader, &line.seq)) return NOT_PLAIN;
            continue;
        }
        if (!skip_value(&reader, 1) || reader.is_odd) return NOT_PLAIN;
        next->length = reader.at - next->value;
        next->is_in_rest = 1;
        count++;
        for (size_t n = 0; n < COUNT_OF(columns); n++) {
            if (columns[n].length != next->name_length || memcmp(columns[n].name, next->name, next->name_length)) continue;
            if ((result = put_field(table, next, columns[n].way, columns[n].column))) return result;
        }
    }
    if (!skip_word(&reader, "}", 1) || reader.at != end) return NOT_PLAIN;
    if ((result = put_identity(table, fields, count)) || (result = put_rest(table, fields, count))) return result;
    table->wholes[0][table->count] = moment;
    table->wholes[1][table->count] = line.seq < 0 ? 0 : line.seq;
    if (line.seq >= 0) set_bit(table->valid[SEQ], table->count);
    return DONE;
}

/* ---------------------------------------------------------------- many */

static int table_init(Table *table, Py_ssize_t room) {
    memset(table, 0, sizeof(*table));
    table->room = room;
    size_t bits = room / 8 + 1;
    for (int n = 0; n < TEXT_COLUMNS; n++) out_init(&table->texts[n]);
    int is_good = (table->passed = PyMem_RawCalloc(bits, 1)) != NULL;
    for (int n = 0; n < COLUMNS; n++) is_good = (table->valid[n] = PyMem_RawCalloc(bits, 1)) != NULL && is_good;
    for (int n = 0; n < TEXT_COLUMNS; n++)
        is_good = (table->ends[n] = PyMem_RawCalloc(room + 1, sizeof(int32_t))) != NULL && is_good;
    for (int n = 0; n < 4; n++) is_good = (table->wholes[n] = PyMem_RawCalloc(room + 1, sizeof(int64_t))) != NULL && is_good;
    for (int n = 0; n < 2; n++) is_good = (table->numbers[n] = PyMem_RawCalloc(room + 1, sizeof(double))) != NULL && is_good;
    return is_good ? DONE : FAILED;
}

static void table_free(Table *table) {
    PyMem_RawFree(table->passed);
    for (int n = 0; n < COLUMNS; n++) PyMem_RawFree(table->valid[n]);
    for (int n = 0; n < TEXT_COLUMNS; n++) {
        PyMem_RawFree(table->ends[n]);
        out_free(&table->texts[n]);
    }
    for (int n = 0; n < 4; n++) PyMem_RawFree(table->wholes[n]);
    for (int n = 0; n < 2; n++) PyMem_RawFree(table->numbers[n]);
}

static void take_back(Table *table) { /* what was put of a row that is none */
    Py_ssize_t row = table->count;
    unsigned char others = (unsigned char)~(1 << (row & 7));
    for (int n = 0; n < COLUMNS; n++) table->valid[n][row >> 3] &= others;
    table->passed[row >> 3] &= others;
    for (int n = 0; n < TEXT_COLUMNS; n++) table->texts[n].at = table->texts[n].start + table->ends[n][row];
}

static PyObject *column_of(Table *table, int column) { /* validity, values, and of texts where they begin before these */
    Py_ssize_t rows = table->count, bits = (rows + 7) / 8;
    const char *valid = (const char *)table->valid[column];
    if (column < TEXT_COLUMNS)
        return Py_BuildValue("y#y#y#", valid, bits, (char *)table->ends[column], (Py_ssize_t)((rows + 1) * sizeof(int32_t)),
                             table->texts[column].start, (Py_ssize_t)(table->texts[column].at - table->texts[column].start));
    if (column == PASSED) return Py_BuildValue("y#y#", valid, bits, (char *)table->passed, bits);
    const char *values = column < SCORE ? (char *)table->wholes[column - TS] : (char *)table->numbers[column - SCORE];
    int is_always = column == TS || column == LINE;
    return Py_BuildValue("y#y#", is_always ? NULL : valid, bits, values, (Py_ssize_t)(rows * sizeof(int64_t)));
}

static PyObject *rows(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer lines;
    const char *begin;
    Py_ssize_t begins, first, number = 0;
    if (!PyArg_ParseTuple(args, "y*y#n", &lines, &begin, &begins, &first)) return NULL;
    const unsigned char *data = lines.buf, *at = data, *end = at + lines.len;
    Py_ssize_t room = 1;
    for (const unsigned char *next = at; next < end && (next = memchr(next, '\n', end - next)) != NULL; next++) room++;
    Table *table = PyMem_RawMalloc(sizeof(Table));
    Numbers odd = {0};
    int result = table == NULL ? FAILED : table_init(table, room);
    if (table != NULL) table->released = PyEval_SaveThread();
    for (; at < end && result != FAILED; number++) {
        const unsigned char *newline = memchr(at, '\n', end - at), *stop = newline == NULL ? end : newline;
        int is_ours = stop - at > begins && !memcmp(at, begin, begins);
        result = is_ours ? put_row(table, at, stop, begins) : NOT_PLAIN;
        if (result == DONE) {
            table->wholes[3][table->count++] = first + number;
            for (int n = 0; n < TEXT_COLUMNS; n++)
                table->ends[n][table->count] = (int32_t)(table->texts[n].at - table->texts[n].start);
        } else if (result == NOT_PLAIN) {
            take_back(table);
            if (add(&odd, number, at - data, stop - data)) result = FAILED;
        }
        at = stop + 1;
    }
    if (table != NULL) PyEval_RestoreThread(table->released);
    if (result == FAILED) PyErr_NoMemory();
    PyObject *all = result == FAILED ? NULL : PyTuple_New(COLUMNS), *others = NULL, *answer = NULL;
    for (int n = 0; n < COLUMNS && all != NULL; n++) {
        PyObject *column = column_of(table, n);
        if (column == NULL) Py_CLEAR(all);
        else PyTuple_SET_ITEM(all, n, column);
    }
    if (all != NULL && (others = list_of(&odd, "(nnn)")) != NULL) answer = Py_BuildValue("nOO", table->count, all, others);
    Py_XDECREF(all);
    Py_XDECREF(others);
    if (table != NULL) table_free(table);
    PyMem_RawFree(table);
    PyMem_RawFree(odd.all);
    PyBuffer_Release(&lines);
    return answer;
}
