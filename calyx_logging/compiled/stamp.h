/* The stamp: time text, event ids, and the marks of records that were taken. */

#ifndef _WIN32
#include <pthread.h>
#include <unistd.h>
#else
#include <process.h>
#define getpid _getpid
#endif

static long process_id; /* follows forks */

/* ---------------------------------------------------------------- time */

static int put_moment(Out *out, double seconds) { /* 2026-11-22T08:00:00.000000+00:00 */
    static long long cached = -1;
    static char text[] = "0000-00-00T00:00:00.";
    if (!(seconds >= 0 && seconds < 253402300799.0)) return NOT_PLAIN;
    long long second = (long long)seconds;
    double fraction = rint((seconds - (double)second) * 1e6); /* as datetime rounds it */
    if (fraction >= 1e6) return NOT_PLAIN;
    if (second != cached) {
        long long days = second / 86400 + 719468, rest = second % 86400, era = days / 146097;
        long long of_era = days - era * 146097; /* civil from days, years that begin in March */
        long long year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        long long of_year = of_era - (365 * year + year / 4 - year / 100), march = (5 * of_year + 2) / 153;
        long long day = of_year - (153 * march + 2) / 5 + 1, month = march < 10 ? march + 3 : march - 9;
        const long long parts[] = {year + era * 400 + (month <= 2), month, day, rest / 3600, rest / 60 % 60, rest % 60};
        static const int ends[] = {4, 7, 10, 13, 16, 19};
        cached = -1;
        for (int n = 0; n < 6; n++) {
            long long value = parts[n];
            for (int place = ends[n] - 1; place >= ends[n] - (n ? 2 : 4); place--, value /= 10) text[place] = '0' + value % 10;
        }
        cached = second;
    }
    if (out_room(out, 32)) return FAILED;
    memcpy(out->at, text, 20);
    unsigned microseconds = (unsigned)fraction;
    for (int place = 25; place >= 20; place--, microseconds /= 10) out->at[place] = '0' + microseconds % 10;
    memcpy(out->at + 26, "+00:00", 6);
    out->at += 32;
    return DONE;
}

/* ---------------------------------------------------------------- event ids */

enum { ID_LENGTH = 36, RANDOM_BYTES = 2048 };

static PyObject *os_urandom, *time_time;

static struct {
    uint64_t milliseconds, count; /* of the last id; a count has 42 bits */
    uint64_t read;                /* milliseconds that the clock said when it was read last */
    size_t left;                  /* unused bytes of random */
    unsigned char random[RANDOM_BYTES];
} ids;

static char hex_bytes[256][2];

static uint64_t random_bits(int bytes) { /* there have to be enough */
    uint64_t bits = 0;
    ids.left -= bytes;
    memcpy(&bits, ids.random + ids.left, bytes);
    return bits;
}

/* A UUIDv7 (RFC 9562, method 1): milliseconds, a count that begins at random in each millisecond, 32 random bits.

   Ids increase within a process. The milliseconds are those of `seconds`, just read by whoever made the record, where
   they follow closely on the last id; else, and every second, the clock says. A forked child draws its own random bits. */
static int new_id(char id[ID_LENGTH], double seconds) {
    if (ids.left < 16) {
        PyObject *bytes = PyObject_CallFunction(os_urandom, "i", RANDOM_BYTES);
        if (bytes == NULL) return FAILED;
        memcpy(ids.random, PyBytes_AS_STRING(bytes), RANDOM_BYTES);
        ids.left = RANDOM_BYTES;
        Py_DECREF(bytes);
    }
    uint64_t now = seconds > 0 && seconds < 1e11 ? (uint64_t)(seconds * 1e3) : 0;
    if (!now || now < ids.milliseconds || now > ids.milliseconds + 10 || now > ids.read + 1000) {
        PyObject *clock = PyObject_CallNoArgs(time_time);
        if (clock == NULL) return FAILED;
        double said = PyFloat_AsDouble(clock);
        Py_DECREF(clock);
        if (said == -1 && PyErr_Occurred()) return FAILED;
        now = ids.read = said > 0 && said < 1e11 ? (uint64_t)(said * 1e3) : 0;
    }
    if (now > ids.milliseconds) {
        ids.milliseconds = now;
        ids.count = random_bits(8) >> 23; /* 41 bits, so that it can be counted on */
    } else if (++ids.count >> 42) {
        ids.milliseconds++;
        ids.count = 0;
    }
    uint64_t high = ids.milliseconds << 16 | 0x7000 | ids.count >> 30;
    uint64_t low = 0x8000000000000000u | (ids.count & 0x3FFFFFFF) << 32 | random_bits(4);
    static const char places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    for (int n = 0; n < 8; n++, high <<= 8, low <<= 8) {
        memcpy(id + places[n], hex_bytes[high >> 56], 2);
        memcpy(id + places[n + 8], hex_bytes[low >> 56], 2);
    }
    id[8] = id[13] = id[18] = id[23] = '-';
    return DONE;
}

static void ids_init(void) {
    for (int n = 0; n < 256; n++) {
        hex_bytes[n][0] = "0123456789abcdef"[n >> 4];
        hex_bytes[n][1] = "0123456789abcdef"[n & 15];
    }
}

#ifndef _WIN32
static void after_fork_in_child(void) {
    process_id = (long)getpid();
    ids.left = 0;
    ids.milliseconds = ids.read = 0;
}
#endif

/* ---------------------------------------------------------------- marks

   A record's mark says who took it, and its event id. The last record of each thread has its mark in a slot, which costs
   next to nothing. Where another record comes and the last one still lives (somebody keeps it, or logged amid its
   handling), its mark moves to the dict `marks`, whose weak references forget it when the record dies. */

enum { SLOTS = 16 };

typedef struct {
    PyObject *record; /* borrowed, and perhaps freed: `reference` knows */
    PyObject *reference, *taker, *mark;
    char id[ID_LENGTH];
} Slot;

static Slot slots[SLOTS];
static PyObject *marks, *marks_pop, *text_event_id; /* `marks.pop` forgets */

static PyObject *referent(PyObject *reference) { /* as a new reference; NULL: it is dead */
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = NULL;
    return PyWeakref_GetRef(reference, &found) > 0 ? found : NULL;
#else
    PyObject *found = PyWeakref_GET_OBJECT(reference);
    return found == Py_None ? NULL : Py_NewRef(found);
#endif
}

static Slot *slot_of(PyObject *record) {
    for (Slot *slot = slots; slot < slots + SLOTS; slot++) {
        if (slot->record != record || slot->reference == NULL) continue;
        PyObject *found = referent(slot->reference); /* the caller has the record, so that this is not the last one */
        Py_XDECREF(found);
        if (found == record) return slot;
    }
    return NULL;
}

static PyObject *mark_in(Slot *slot) { /* borrowed: the slot's mark as a dict, from now on */
    if (slot->mark == NULL) {
        PyObject *mark = PyDict_New(), *id = PyUnicode_FromStringAndSize(slot->id, ID_LENGTH);
        if (mark == NULL || id == NULL || (slot->taker != NULL && PyDict_SetItem(mark, slot->taker, Py_True)) ||
            (slot->id[0] && PyDict_SetItem(mark, text_event_id, id)))
            Py_CLEAR(mark);
        Py_XDECREF(id);
        slot->mark = mark;
    }
    return slot->mark;
}

static int slot_empty(Slot *slot, int is_to_last) {
    Slot had = *slot;
    slot->record = slot->reference = slot->taker = slot->mark = NULL;
    slot->id[0] = 0;
    int result = DONE;
    PyObject *record = is_to_last && had.reference != NULL ? referent(had.reference) : NULL;
    if (record != NULL) { /* held, because a collection of garbage may come in any of these */
        PyObject *mark = mark_in(&had), *lasting = mark == NULL ? NULL : PyWeakref_NewRef(record, marks_pop);
        result = lasting == NULL ? FAILED : PyDict_SetItem(marks, lasting, mark);
        Py_XDECREF(lasting);
        Py_DECREF(record);
    }
    Py_XDECREF(had.reference);
    Py_XDECREF(had.taker);
    Py_XDECREF(had.mark);
    return result;
}

/* The slot for a record that has none, and no mark either; a memory error leaves the thread's slot empty. */
static Slot *slot_for(PyObject *record) {
    PyObject *reference = PyWeakref_NewRef(record, NULL);
    if (reference == NULL) return NULL;
    Slot *slot = slots + (PyThread_get_thread_ident() >> 12) % SLOTS;
    while (slot->reference != NULL) /* what dies there may log, and fill it again */
        if (slot_empty(slot, 1)) {
            Py_DECREF(reference);
            return NULL;
        }
    slot->record = record;
    slot->reference = reference;
    return slot;
}

/* Look a record up in `marks`: borrowed; NULL where it is not there, or with an exception. */
static PyObject *lasting_mark(PyObject *record) {
    if (PyDict_GET_SIZE(marks) == 0) return NULL;
    PyObject *reference = PyWeakref_NewRef(record, NULL);
    if (reference == NULL) return NULL;
    PyObject *mark = PyDict_GetItemWithError(marks, reference);
    Py_DECREF(reference);
    return mark;
}

static PyObject *mark_of(PyObject *Py_UNUSED(module), PyObject *record) {
    Slot *slot = slot_of(record);
    PyObject *mark = slot == NULL ? lasting_mark(record) : mark_in(slot);
    if (mark == NULL && !PyErr_Occurred() && (slot = slot_for(record)) != NULL) mark = mark_in(slot);
    return Py_XNewRef(mark);
}
