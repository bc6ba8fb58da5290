/* A value out of the read cache's dict, as a reference of the caller's own. Without a GIL a borrowed
 * one is of no use: as soon as the lookup returns, another thread may replace the value or remove
 * it, and with it the last reference.
 */
#ifndef NFSDICT_CACHED_H
#define NFSDICT_CACHED_H

#include <Python.h>

/* The key's value, as a new reference. NULL without an exception if the dict doesn't have the key,
   or has missing for it; NULL with an exception if the key has no hash, or can't be compared. */
static inline PyObject *nfsdict_cached(PyObject *cache, PyObject *key, PyObject *missing)
{
    PyObject *value;

#if PY_VERSION_HEX >= 0x030D0000
    if (PyDict_GetItemRef(cache, key, &value) == 1 && value == missing)
        Py_CLEAR(value);
#else
    /* Here nobody runs between these lines but the thread that holds the GIL. */
    value = PyDict_GetItemWithError(cache, key);
    if (value == missing)
        value = NULL;
    Py_XINCREF(value);
#endif
    return value;
}

/* The same reference, given to Cython as an object, so that it isn't counted up and down again. */
static inline PyObject *nfsdict_owned(PyObject *value)
{
    return value;
}

#endif
