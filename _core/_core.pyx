# cython: language_level=3, wraparound=False, freethreading_compatible=True
"""The compiled core: what is called once for each key or each file. Twin of ``nfsdict._pure``.

The contract of both is ``_core.pyi``.
"""

# ``freethreading_compatible`` says that nothing in here relies on a GIL. Each function was looked
# at for what threads share; comments that begin with "Threads:" say what that is and what keeps it
# whole. Common to all:
#
# - Arguments that are ``str`` or ``bytes`` can't change. A list can, and may be any thread's: each
#   access to one checks its bounds (so there is no ``boundscheck=False`` above) and gives a
#   reference of our own. A list that another thread shortens meanwhile ends in IndexError.
# - Other buffers are held while they are read. Who changes their bytes meanwhile gets a checksum,
#   or a file, of some of each, as with a GIL.
# - ``MISSING``, ``HEX``, ``can_fold``, and Cython's constants are set while the module is
#   initialised, and only read afterwards. Cython has one set for the process, and refuses to
#   initialise the module in a second interpreter. (A set for each module would have to be found at
#   each call, and ``cdef`` variables, and functions that take the GIL back, aren't part of it yet.)
# - ``sha256.c`` shares a pointer to the implementation, which it reads and writes atomically.
#   ``files.c`` shares a count of forks, which only a child that was just forked changes, while it
#   has one thread; the random bytes for temporary names are each thread's own. Its requests and
#   their buffers are local to the call that made them.
# - All else is local.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, strlen

import os
import zlib
from types import GenericAlias

cdef extern from "pythread.h":
    # The time in microseconds.
    int PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) nogil

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    int PyDict_Contains(PyObject* mapping, object key) except -1
    bint PyUnicode_Check(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void* PyUnicode_DATA(object text)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    object PyUnicode_DecodeFSDefault(const char* data)
    object PyUnicode_DecodeASCII(const char* data, Py_ssize_t size, const char* errors)
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1
    void Py_XDECREF(PyObject* owned)

cdef extern from "cached.h":
    PyObject* nfsdict_cached(PyObject* cache, object key, PyObject* missing) except? NULL
    object nfsdict_owned(PyObject* value)

cdef extern from *:
    """
    /* Without a GIL, CPython's own allocator promises any room, also what the system hasn't got. */
    #ifdef Py_GIL_DISABLED
    static int nfsdict_has_room(size_t size)
    {
        void *volatile room = malloc(size);

        free(room);
        return room != NULL;
    }
    #else
    #define nfsdict_has_room(size) 1
    #endif
    """
    bint nfsdict_has_room(size_t size)

cdef extern from "sys/uio.h":
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from "crc32.h":
    enum:
        NFSDICT_CRC32_BLOCK
        NFSDICT_CRC32_FOLDED

    bint nfsdict_crc32_can_fold() nogil
    void nfsdict_crc32_fold(
        const uint8_t* data, size_t size, uint32_t checksum, uint8_t* folded
    ) nogil

cdef extern from "sha256.h":
    void nfsdict_sha256_select() nogil
    void nfsdict_sha256(const uint8_t* data, size_t size, uint8_t* digest) nogil
    const char* nfsdict_sha256_implementation() nogil

cdef extern from "files.h":
    ctypedef struct nfsdict_signature:
        uint64_t inode
        uint64_t size
        int64_t mtime_ns
        int64_t ctime_ns

    ctypedef struct nfsdict_read_request:
        const char* path
        char* data
        size_t size
        void* owner
        nfsdict_signature signature
        int error

    ctypedef char* (*nfsdict_allocate)(size_t size, void** owner) noexcept nogil

    ctypedef struct nfsdict_writing:
        const char* target
        char* temporary
        iovec* parts
        size_t count
        nfsdict_signature signature
        int error
        int step

    ctypedef struct nfsdict_stat_request:
        const char* path
        int64_t mtime_ns
        int64_t ctime_ns
        int error

    ctypedef struct nfsdict_entry:
        char* name
        uint32_t mode
        int64_t ctime_ns
        nfsdict_signature signature

    ctypedef struct nfsdict_known:
        uint8_t digest[32]
        nfsdict_signature signature
        int same

    ctypedef struct nfsdict_listing:
        const char* path
        int forget
        nfsdict_known* known
        size_t known_count
        const char* extension
        int64_t mtime_ns
        int64_t ctime_ns
        nfsdict_entry* entries
        size_t count
        int error

    void nfsdict_files_prepare() nogil
    void nfsdict_stat(nfsdict_stat_request* request) nogil
    int nfsdict_identify(const char* path, uint64_t* device, uint64_t* inode) nogil
    void nfsdict_list(nfsdict_listing* listing) nogil
    void nfsdict_listing_free(nfsdict_listing* listing) nogil
    void nfsdict_read_file(nfsdict_read_request* request, nfsdict_allocate allocate) nogil

    int NFSDICT_WHOLE
    int NFSDICT_PREPARE
    int NFSDICT_PUBLISH

    ctypedef struct nfsdict_write_options:
        int part
        int mode
        int durable
        int synced
        int exclusive

    void nfsdict_write_files(
        nfsdict_writing* writings, size_t count, const nfsdict_write_options* options
    ) nogil


class Missing:
    """The type of ``MISSING``, so that a traceback or a debugger shows a name."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()
cdef object _missing = MISSING

nfsdict_sha256_select()
nfsdict_files_prepare()
SHA256_IMPLEMENTATION = nfsdict_sha256_implementation().decode()
cdef bint can_fold = nfsdict_crc32_can_fold()


# --- key -> digest -> path ---------------------------------------------------------------------

# Threads: these share nothing. The text that ``value_path`` fills is its own until it returns.

cdef const char* HEX = b"0123456789abcdef"


cdef int raw_digest(object key, uint8_t* raw) except -1:
    """Write the 32 bytes of the key's SHA-256 to ``raw``."""
    cdef bytes encoded
    if not PyUnicode_Check(key):
        raise TypeError(f"keys are str, not {type(key).__name__}")
    if PyUnicode_IS_ASCII(key):
        nfsdict_sha256(<const uint8_t*> PyUnicode_DATA(key), PyUnicode_GET_LENGTH(key), raw)
    else:
        encoded = str.encode(key, "utf-8", "surrogatepass")
        nfsdict_sha256(<const uint8_t*> PyBytes_AS_STRING(encoded), len(encoded), raw)
    return 0


cdef int hex_digest(object key, char* text) except -1:
    """Write the 64 hex digits of the key's SHA-256 to ``text``."""
    cdef uint8_t raw[32]
    cdef int i
    raw_digest(key, raw)
    for i in range(32):
        text[2 * i] = HEX[raw[i] >> 4]
        text[2 * i + 1] = HEX[raw[i] & 15]
    return 0


def digest(key, /):
    cdef char text[64]
    hex_digest(key, text)
    return PyUnicode_DecodeASCII(text, 64, NULL)


def value_path(str directory not None, key, str extension not None, /):
    # "/", two digits, "/", 64 digits
    cdef char name[68]
    cdef Py_ssize_t before, after
    cdef char* whole
    cdef object path
    hex_digest(key, name + 4)
    name[0] = name[3] = c"/"
    name[1] = name[4]
    name[2] = name[5]
    if not (PyUnicode_IS_ASCII(directory) and PyUnicode_IS_ASCII(extension)):
        return directory + PyUnicode_DecodeASCII(name, 68, NULL) + extension
    before = PyUnicode_GET_LENGTH(directory)
    after = PyUnicode_GET_LENGTH(extension)
    path = PyUnicode_New(before + 68 + after, 127)
    whole = <char*> PyUnicode_DATA(path)
    memcpy(whole, PyUnicode_DATA(directory), before)
    memcpy(whole + before, name, 68)
    memcpy(whole + before + 68, PyUnicode_DATA(extension), after)
    return path


# --- the read cache ----------------------------------------------------------------------------

# Threads: all share the dict, and change it at any moment. Its own lock keeps each operation on it
# whole; what is looked up comes with a reference of our own, see ``cached.h``. The field
# ``_cache`` is set once, before anybody else has the object, so it needs no reference while it is
# used: whoever calls a method has one to the object.

cdef class ReadCache:
    """The reading methods of ``NfsDict``: reading a cached value is one lookup in a dict."""

    cdef readonly dict _cache

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._cache = {}

    def __getitem__(self, key, /):
        cdef PyObject* found = nfsdict_cached(<PyObject*> self._cache, key, <PyObject*> _missing)
        if found is not NULL:
            return nfsdict_owned(found)
        value = self._lookup(key, False)
        if value is _missing:
            raise KeyError(key)
        return value

    def get(self, key, default=None, *, bint fresh=False):
        """The entry's value, or ``default`` if there is none.

        A cached value is returned without a system call, whatever others wrote since. With
        ``fresh`` the call asks the disk, whatever the cache and an NFS client remember: it sees
        what any host had finished writing before it. CorruptValueError if the file is damaged;
        OSError if it can't be told whether there is an entry.
        """
        cdef PyObject* found
        if not fresh:
            found = nfsdict_cached(<PyObject*> self._cache, key, <PyObject*> _missing)
            if found is not NULL:
                return nfsdict_owned(found)
        value = self._lookup(key, fresh)
        return default if value is _missing else value

    def __contains__(self, key, /):
        if not PyUnicode_Check(key):
            return False
        return PyDict_Contains(<PyObject*> self._cache, key) or self._exists(key)

    def _lookup(self, key, fresh, /):
        raise NotImplementedError

    def _exists(self, key, /):
        raise NotImplementedError


# --- signatures and packs: little-endian, whatever the machine -----------------------------------

# Threads: these share only the lists that ``encode_table`` is given: of each the length is taken
# once, and each key once, with a reference. An ``_Encoder`` never leaves the call that made it.

cdef inline void put32(uint8_t* at, uint32_t number) noexcept nogil:
    cdef int i
    for i in range(4):
        at[i] = <uint8_t> (number >> (8 * i))


cdef inline void put64(uint8_t* at, uint64_t number) noexcept nogil:
    cdef int i
    for i in range(8):
        at[i] = <uint8_t> (number >> (8 * i))


cdef inline uint32_t take32(const uint8_t* at) noexcept nogil:
    cdef uint32_t number = 0
    cdef int i
    for i in range(4):
        number |= <uint32_t> at[i] << (8 * i)
    return number


cdef inline uint64_t take64(const uint8_t* at) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(8):
        number |= <uint64_t> at[i] << (8 * i)
    return number


cdef enum:
    SHARDS = 256
    SIGNATURE = 32
    SHARD_HEADER = 40
    ENTRY = SIGNATURE + 8
    ABSENT = 0xFFFFFFFE


cdef bytes signature_bytes(nfsdict_signature* signature):
    cdef uint8_t packed[SIGNATURE]
    put64(packed, signature.inode)
    put64(packed + 8, signature.size)
    put64(packed + 16, <uint64_t> signature.mtime_ns)
    put64(packed + 24, <uint64_t> signature.ctime_ns)
    return PyBytes_FromStringAndSize(<const char*> packed, SIGNATURE)


cdef class _Encoder:
    """A growing buffer."""

    cdef uint8_t* data
    cdef size_t size, room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef uint8_t* more(self, size_t count) except NULL:
        cdef uint8_t* larger
        cdef size_t room
        if self.data is NULL or self.room - self.size < count:
            room = self.size + count + self.room // 2 + 4096
            larger = <uint8_t*> PyMem_Realloc(self.data, room)
            if larger is NULL:
                raise MemoryError
            self.data, self.room = larger, room
        self.size += count
        return self.data + self.size - count


def encode_table(list shards not None, /):
    cdef _Encoder out = _Encoder()
    cdef list keys
    cdef bytes signatures, lengths, encoded
    cdef int64_t mtime, ctime
    cdef uint64_t size
    cdef uint32_t checksum
    cdef size_t count, start, at, text
    cdef Py_ssize_t i, length
    cdef const char* source
    if len(shards) != SHARDS:
        raise ValueError(f"a table has {SHARDS} shards, not {len(shards)}")
    for stamp, keys, signatures, lengths, size, checksum in shards:
        mtime, ctime = stamp
        count = len(keys)
        if <size_t> len(signatures) != SIGNATURE * count or <size_t> len(lengths) != 4 * count:
            raise ValueError("a signature and a length for each key, and no more")
        start = out.size
        out.more(SHARD_HEADER + ENTRY * count)
        put64(out.data + start, <uint64_t> mtime)
        put64(out.data + start + 8, <uint64_t> ctime)
        put32(out.data + start + 16, <uint32_t> count)
        put64(out.data + start + 28, size)
        put32(out.data + start + 36, checksum)
        at = start + SHARD_HEADER
        memcpy(out.data + at, PyBytes_AS_STRING(signatures), SIGNATURE * count)
        at += SIGNATURE * count
        memcpy(out.data + at, PyBytes_AS_STRING(lengths), 4 * count)
        at += 4 * count
        text = out.size
        for i in range(<Py_ssize_t> count):
            key = keys[i]
            if not PyUnicode_Check(key):
                raise TypeError(f"keys are str, not {type(key).__name__}")
            if PyUnicode_IS_ASCII(key):
                source = <const char*> PyUnicode_DATA(key)
                length = PyUnicode_GET_LENGTH(key)
            else:
                encoded = str.encode(key, "utf-8", "surrogatepass")
                source = PyBytes_AS_STRING(encoded)
                length = len(encoded)
            if length > 0xFFFFFFFF:
                raise ValueError("a key of more than 4 GiB")
            memcpy(out.more(length), source, length)
            put32(out.data + at + 4 * i, <uint32_t> length)
        put64(out.data + start + 20, out.size - text)
    return PyBytes_FromStringAndSize(<const char*> out.data, out.size)


def parse_table(bytes table not None, /):
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(table)
    cdef uint64_t left = len(table)
    cdef uint64_t text, count, length, size
    cdef uint32_t checksum
    cdef const uint8_t* key_lengths
    cdef Py_ssize_t i
    cdef int _shard
    cdef list shards = [], keys
    cdef int64_t mtime, ctime
    for _shard in range(SHARDS):
        if left < SHARD_HEADER:
            raise ValueError("table cut short")
        mtime = <int64_t> take64(at)
        ctime = <int64_t> take64(at + 8)
        count = take32(at + 16)
        text = take64(at + 20)
        size = take64(at + 28)
        checksum = take32(at + 36)
        at += SHARD_HEADER
        left -= SHARD_HEADER
        if left < ENTRY * count or left - ENTRY * count < text:
            raise ValueError("table cut short")
        signatures = PyBytes_FromStringAndSize(<const char*> at, SIGNATURE * count)
        at += SIGNATURE * count
        lengths = PyBytes_FromStringAndSize(<const char*> at, 4 * count)
        at += 4 * count
        key_lengths = at
        at += 4 * count
        left -= ENTRY * count + text
        keys = [None] * <Py_ssize_t> count
        for i in range(<Py_ssize_t> count):
            length = take32(key_lengths + 4 * i)
            if length > text:
                raise ValueError("a key runs past its shard")
            keys[i] = PyUnicode_DecodeUTF8(<const char*> at, length, "surrogatepass")
            at += length
            text -= length
        if text != 0:
            raise ValueError("bytes left over in a shard")
        shards.append(((mtime, ctime), keys, signatures, lengths, size, checksum))
    if left != 0:
        raise ValueError("bytes left over in the table")
    return shards


def split_values(bytes section not None, bytes lengths not None, /):
    cdef const char* at = PyBytes_AS_STRING(section)
    cdef const uint8_t* length_at = <const uint8_t*> PyBytes_AS_STRING(lengths)
    cdef size_t left = len(section)
    cdef Py_ssize_t count = len(lengths) // 4, i
    cdef uint32_t length
    cdef list values = [None] * count
    if len(lengths) % 4:
        raise ValueError("lengths cut short")
    for i in range(count):
        length = take32(length_at + 4 * i)
        if length >= <uint32_t> ABSENT:
            continue
        if length > left:
            raise ValueError("a value runs past its section")
        values[i] = PyBytes_FromStringAndSize(at, length)
        at += length
        left -= length
    if left != 0:
        raise ValueError("bytes left over in a section")
    return values


# --- large contents ------------------------------------------------------------------------------

# Threads: these share nothing but the bytes that they are given.

cdef enum:
    ALIGNMENT = 64
    # For fewer bytes zlib alone is as fast.
    FOLDED = 1024


def crc32(data, uint32_t checksum=0, /):
    cdef Py_buffer view
    cdef size_t whole
    cdef uint8_t folded[16]
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not can_fold or view.len < FOLDED:
            return zlib.crc32(data, checksum)
        whole = view.len - view.len % NFSDICT_CRC32_BLOCK
        with nogil:
            nfsdict_crc32_fold(<const uint8_t*> view.buf, whole, checksum, folded)
        rest = PyBytes_FromStringAndSize(<const char*> view.buf + whole, view.len - whole)
        folded_bytes = PyBytes_FromStringAndSize(<const char*> folded, NFSDICT_CRC32_FOLDED)
        return zlib.crc32(folded_bytes + rest, 0xFFFFFFFF)
    finally:
        PyBuffer_Release(&view)


cdef inline size_t unaligned(const char* data) noexcept nogil:
    """How many bytes lie before the next address that is a multiple of ``ALIGNMENT``."""
    return -<size_t> data % ALIGNMENT


cdef object part_of(bytes owner, size_t start, size_t size):
    return memoryview(owner)[start : start + size]


def aligned(data, /):
    cdef Py_buffer view
    cdef bytes room
    cdef size_t start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if unaligned(<const char*> view.buf) == 0:
            return memoryview(data).toreadonly()
        room = PyBytes_FromStringAndSize(NULL, view.len + ALIGNMENT - 1)
        start = unaligned(PyBytes_AS_STRING(room))
        memcpy(PyBytes_AS_STRING(room) + start, view.buf, view.len)
        return part_of(room, start, view.len)
    finally:
        PyBuffer_Release(&view)


# --- files ---------------------------------------------------------------------------------------

# Threads: these share only the lists that they are given. Each path and content is taken once, and
# ``kept`` and ``contents`` hold references to them while the system reads their bytes without the
# GIL. ``allocate`` attaches the thread to the interpreter again; its ``bytes`` are nobody else's.

cdef const char* path_bytes(path, list kept) except NULL:
    """The path as the system takes it. The object that owns its bytes is added to ``kept``."""
    cdef const char* text
    cdef Py_ssize_t size
    if not PyUnicode_Check(path):
        raise TypeError(f"paths are str, not {type(path).__name__}")
    if PyUnicode_IS_ASCII(path):
        kept.append(path)
        text, size = <const char*> PyUnicode_DATA(path), PyUnicode_GET_LENGTH(path)
    else:
        encoded = os.fsencode(path)
        kept.append(encoded)
        text, size = PyBytes_AS_STRING(encoded), len(encoded)
    if strlen(text) != <size_t> size:  # the system would take only the part before the NUL
        raise ValueError("embedded null byte")
    return text


cdef char* allocate(size_t size, void** owner) noexcept with gil:
    """Room for a large content, in a new ``bytes``, so that memory holds the content once."""
    if size > <size_t> PY_SSIZE_T_MAX or not nfsdict_has_room(size):
        return NULL
    try:
        data = PyBytes_FromStringAndSize(NULL, size)
    except (MemoryError, OverflowError):
        return NULL
    Py_INCREF(data)
    owner[0] = <void*> data
    return PyBytes_AS_STRING(data)


cdef char* allocate_aligned(size_t size, void** owner) noexcept with gil:
    """As ``allocate``, at an address that is a multiple of ``ALIGNMENT``, within its owner."""
    cdef char* room = allocate(size + ALIGNMENT - 1, owner)
    return NULL if room is NULL else room + unaligned(room)


cdef content(nfsdict_read_request* request, bint is_aligned):
    """Move the content out of the request: ``bytes``, or a view if it was read aligned."""
    cdef PyObject* owner = <PyObject*> request.owner
    cdef char* start = request.data
    if owner is NULL:
        data = PyBytes_FromStringAndSize(request.data, request.size)
        free(request.data)
    elif is_aligned:
        request.owner = request.data = NULL
        data = <object> owner
        Py_XDECREF(owner)
        return part_of(data, start - PyBytes_AS_STRING(data), request.size)
    else:
        request.owner = NULL
        if <size_t> PyBytes_GET_SIZE(<object> owner) != request.size:  # the file was cut meanwhile
            _PyBytes_Resize(&owner, request.size)
        data = <object> owner
        Py_XDECREF(owner)
    request.data = NULL
    return data


cdef void release(nfsdict_read_request* request):
    if request.owner is NULL:
        free(request.data)
    else:
        Py_XDECREF(<PyObject*> request.owner)


cdef list read_all(list paths, bint is_aligned):
    cdef nfsdict_allocate room = allocate_aligned if is_aligned else allocate
    cdef list kept = []
    cdef Py_ssize_t count = len(paths), i
    cdef list contents = []
    cdef nfsdict_read_request* requests
    requests = <nfsdict_read_request*> PyMem_Malloc((count + 1) * sizeof(nfsdict_read_request))
    if requests is NULL:
        raise MemoryError
    try:
        for i in range(count):
            requests[i].path = path_bytes(paths[i], kept)
        with nogil:
            for i in range(count):
                nfsdict_read_file(&requests[i], room)
        try:
            for i in range(count):
                if requests[i].error != 0:
                    contents.append(requests[i].error)
                    continue
                data = content(&requests[i], is_aligned)
                contents.append((data, signature_bytes(&requests[i].signature)))
        finally:
            for i in range(count):
                release(&requests[i])
    finally:
        PyMem_Free(requests)
    return contents


def read_files(list paths not None, /):
    return read_all(paths, False)


def read_aligned(list paths not None, /):
    return read_all(paths, True)


def read_stamps(list directories not None, /):
    cdef list kept = [], stamps = []
    cdef Py_ssize_t count = len(directories), i
    cdef nfsdict_stat_request* requests
    requests = <nfsdict_stat_request*> PyMem_Malloc((count + 1) * sizeof(nfsdict_stat_request))
    if requests is NULL:
        raise MemoryError
    try:
        for i in range(count):
            requests[i].path = path_bytes(directories[i], kept)
        with nogil:
            for i in range(count):
                nfsdict_stat(&requests[i])
        for i in range(count):
            if requests[i].error != 0:
                stamps.append(requests[i].error)
            else:
                stamps.append((requests[i].mtime_ns, requests[i].ctime_ns))
    finally:
        PyMem_Free(requests)
    return stamps


def identify(path, /):
    cdef list kept = []
    cdef const char* text = path_bytes(path, kept)
    cdef uint64_t device, inode
    cdef int error
    with nogil:
        error = nfsdict_identify(text, &device, &inode)
    if error != 0:
        return error
    return device, inode


cdef object listed(nfsdict_listing* listing):
    """The listing as Python's objects; it is freed."""
    cdef list entries = []
    cdef nfsdict_entry* entry
    cdef size_t i
    with nogil:
        nfsdict_list(listing)
    try:
        if listing.error != 0:
            return listing.error
        for i in range(listing.count):
            entry = &listing.entries[i]
            entries.append((
                PyUnicode_DecodeFSDefault(entry.name),
                entry.mode,
                signature_bytes(&entry.signature),
                entry.ctime_ns,
            ))
        return listing.mtime_ns, listing.ctime_ns, entries
    finally:
        nfsdict_listing_free(listing)


def list_directory(directory, int forget, /):
    cdef list kept = []
    cdef nfsdict_listing listing
    listing.path = path_bytes(directory, kept)
    listing.forget = forget
    listing.known, listing.known_count = NULL, 0
    return listed(&listing)


def list_changes(
    directory, int forget, list keys not None, bytes signatures not None, extension, /
):
    cdef list kept = []
    cdef nfsdict_listing listing
    cdef nfsdict_known* known
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(signatures)
    cdef Py_ssize_t count = len(keys), i
    if len(signatures) != SIGNATURE * count:
        raise ValueError("a signature for each key, and no more")
    listing.path = path_bytes(directory, kept)
    listing.extension = path_bytes(extension, kept)
    listing.forget = forget
    known = <nfsdict_known*> PyMem_Malloc((count + 1) * sizeof(nfsdict_known))
    if known is NULL:
        raise MemoryError
    try:
        for i in range(count):
            raw_digest(keys[i], known[i].digest)
            known[i].signature.inode = take64(at)
            known[i].signature.size = take64(at + 8)
            known[i].signature.mtime_ns = <int64_t> take64(at + 16)
            known[i].signature.ctime_ns = <int64_t> take64(at + 24)
            at += SIGNATURE
        listing.known, listing.known_count = known, count
        found = listed(&listing)
        if isinstance(found, int):
            return found
        return *found, [i for i in range(count) if not known[i].same]
    finally:
        PyMem_Free(known)


cdef object outcome(nfsdict_writing* writing):
    if writing.error != 0:
        return writing.step, writing.error
    return signature_bytes(&writing.signature)


cdef list parts_of(content):
    """The parts of a file's content, in a list of our own: other threads can't change it."""
    cdef list parts
    if isinstance(content, bytes):
        return [content]
    if isinstance(content, list):
        parts = list(content)
        if all([isinstance(part, (bytes, memoryview)) for part in parts]):
            return parts
    raise TypeError("a file's content is bytes, or a list of bytes and memoryviews")


cdef inline void describe(iovec* part, bytes data) noexcept:
    part.iov_base = PyBytes_AS_STRING(data)
    part.iov_len = PyBytes_GET_SIZE(data)


cdef class _Views:
    """Buffers that are held, so that nobody resizes or frees them, until this object goes."""

    cdef Py_buffer* views
    cdef size_t count

    def __cinit__(self, size_t room):
        self.views = <Py_buffer*> PyMem_Malloc((room + 1) * sizeof(Py_buffer))
        if self.views is NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.count):
            PyBuffer_Release(&self.views[i])
        PyMem_Free(self.views)

    cdef int describe(self, iovec* part, data) except -1:
        cdef Py_buffer* view = &self.views[self.count]
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
        self.count += 1
        part.iov_base, part.iov_len = view.buf, view.len
        return 0


def write_file(target, data, mode, bint durable, bint synced, /):
    cdef list kept = []
    cdef nfsdict_write_options options
    cdef nfsdict_writing writing
    cdef iovec part
    if not isinstance(data, bytes):
        return write_files([(target, data)], mode, durable, synced, False)[0]
    options.part, options.mode = NFSDICT_WHOLE, -1 if mode is None else mode
    options.durable, options.synced, options.exclusive = durable, synced, False
    writing.target = path_bytes(target, kept)
    describe(&part, data)
    writing.parts, writing.count = &part, 1
    with nogil:
        nfsdict_write_files(&writing, 1, &options)
    return outcome(&writing)


cdef object prepared(nfsdict_writing* writing):
    if writing.error != 0:
        return writing.error
    return PyUnicode_DecodeFSDefault(writing.temporary), signature_bytes(&writing.signature)


cdef int write_all(list files, nfsdict_write_options* options, list outcomes) except -1:
    """Write these files whole, or prepare them, and append their outcomes."""
    cdef list kept = [], targets = [], contents = [], parts
    cdef Py_ssize_t count, total = 0, i
    cdef nfsdict_writing* writings = NULL
    cdef iovec* part = NULL
    cdef iovec* all_parts = NULL
    cdef _Views views
    for target, data in files:  # only once, so that no target gets another one's content
        parts = parts_of(data)
        targets.append(target)
        contents.append(parts)
        total += len(parts)
    count = len(targets)
    views = _Views(total)
    try:
        writings = <nfsdict_writing*> PyMem_Malloc((count + 1) * sizeof(nfsdict_writing))
        all_parts = part = <iovec*> PyMem_Malloc((total + 1) * sizeof(iovec))
        if writings is NULL or all_parts is NULL:
            raise MemoryError
        for i in range(count):
            writings[i].target = path_bytes(targets[i], kept)
            parts = contents[i]
            writings[i].parts, writings[i].count = part, len(parts)
            for data in parts:
                views.describe(part, data)
                part += 1
        with nogil:
            nfsdict_write_files(writings, count, options)
        try:
            for i in range(count):
                if options.part == NFSDICT_PREPARE:
                    outcomes.append(prepared(&writings[i]))
                else:
                    outcomes.append(outcome(&writings[i]))
        finally:
            for i in range(count):
                free(writings[i].temporary)
    finally:
        PyMem_Free(all_parts)
        PyMem_Free(writings)
    return 0


def outlast(list started not None, list ended not None, /):
    cdef PyThread_type_lock lock = NULL
    if not started:
        return
    lock = PyThread_allocate_lock()
    if lock is NULL:
        raise MemoryError
    # Waiting for a lock that nobody releases is a pause that looks for no signals.
    PyThread_acquire_lock(lock, NOWAIT_LOCK)
    while not ended:
        with nogil:
            PyThread_acquire_lock_timed(lock, 500, 0)
    PyThread_release_lock(lock)
    PyThread_free_lock(lock)


def write_files(list files not None, mode, bint durable, bint synced, bint exclusive, /):
    cdef nfsdict_write_options options
    cdef list outcomes = []
    options.part, options.mode = NFSDICT_WHOLE, -1 if mode is None else mode
    options.durable, options.synced, options.exclusive = durable, synced, exclusive
    write_all(files, &options, outcomes)
    return outcomes


def prepare_files(list files not None, list made not None, mode, bint durable, /):
    cdef nfsdict_write_options options
    options.part, options.mode = NFSDICT_PREPARE, -1 if mode is None else mode
    options.durable, options.synced, options.exclusive = durable, False, False
    write_all(files, &options, made)


def publish_files(list files not None, bint synced, /):
    cdef list kept = [], outcomes = []
    cdef Py_ssize_t count = len(files), i
    cdef nfsdict_write_options options
    cdef nfsdict_writing* writings
    options.part, options.mode = NFSDICT_PUBLISH, -1
    options.durable, options.synced, options.exclusive = False, synced, False
    writings = <nfsdict_writing*> PyMem_Malloc((count + 1) * sizeof(nfsdict_writing))
    if writings is NULL:
        raise MemoryError
    try:
        for i in range(count):
            temporary, target = files[i]
            writings[i].temporary = <char*> path_bytes(temporary, kept)
            writings[i].target = path_bytes(target, kept)
        with nogil:
            nfsdict_write_files(writings, count, &options)
        for i in range(count):
            outcomes.append((writings[i].step, writings[i].error) if writings[i].error else None)
    finally:
        PyMem_Free(writings)
    return outcomes
