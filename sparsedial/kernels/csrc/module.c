/* The kernels as Python functions of addresses and sizes; whoever calls them checks both. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

#define MOST 32

/* Every argument is an address or a size as an int, or a constant as a float. */
static int numbers(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted, long long *n, float *x,
                   const char *name) {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, count);
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyFloat_Check(args[i])) {
            x[i] = (float)PyFloat_AS_DOUBLE(args[i]);
        } else {
            n[i] = PyLong_AsLongLong(args[i]);
            if (n[i] == -1 && PyErr_Occurred()) return 0;
        }
    }
    return 1;
}

#define P(i) ((float *)(intptr_t)n[i])
#define I(i) ((int32_t *)(intptr_t)n[i])
#define C(i) ((int64_t *)(intptr_t)n[i])
#define L(i) ((long)n[i])
#define N(i) ((int)n[i])

#define CALL(function, wanted, ...)                                                           \
    static PyObject *py_##function(PyObject *self, PyObject *const *args, Py_ssize_t count) { \
        long long n[MOST] = {0};                                                              \
        float x[MOST] = {0};                                                                  \
        (void)self;                                                                           \
        if (!numbers(args, count, wanted, n, x, #function)) return NULL;                      \
        Py_BEGIN_ALLOW_THREADS                                                                \
        function(__VA_ARGS__);                                                                \
        Py_END_ALLOW_THREADS                                                                  \
        Py_RETURN_NONE;                                                                       \
    }

CALL(norm_forward, 8, P(0), P(1), P(2), P(3), L(4), L(5), x[6], N(7))
CALL(norm_backward, 9, P(0), P(1), P(2), P(3), P(4), P(5), L(6), L(7), N(8))
CALL(heads_forward, 14, P(0), P(1), P(2), P(3), P(4), P(5), P(6), L(7), L(8), L(9), L(10), L(11), x[12], N(13))
CALL(heads_backward, 15, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), L(9), L(10), L(11), L(12), L(13), N(14))
CALL(attention_forward, 11, P(0), P(1), P(2), P(3), L(4), L(5), L(6), L(7), L(8), x[9], N(10))
CALL(attention_backward, 14, P(0), P(1), P(2), P(3), P(4), P(5), P(6), L(7), L(8), L(9), L(10), L(11), x[12], N(13))
CALL(activate, 5, P(0), P(1), L(2), L(3), N(4))
CALL(activate_backward, 6, P(0), P(1), P(2), L(3), L(4), N(5))
CALL(sort_rows, 6, C(0), L(1), L(2), I(3), I(4), I(5))
CALL(sparse_forward, 16, P(0), P(1), P(2), I(3), I(4), I(5), P(6), P(7), P(8), P(9), L(10), L(11), L(12), L(13), L(14),
     N(15))
CALL(sparse_backward, 21, P(0), P(1), P(2), P(3), I(4), I(5), I(6), P(7), P(8), P(9), P(10), P(11), P(12), P(13), P(14),
     L(15), L(16), L(17), L(18), L(19), N(20))
CALL(route_forward, 21, P(0), P(1), P(2), C(3), P(4), P(5), P(6), P(7), P(8), P(9), P(10), L(11), L(12), L(13), L(14),
     N(15), N(16), x[17], x[18], x[19], N(20))
CALL(route_backward, 21, P(0), P(1), P(2), C(3), P(4), P(5), P(6), P(7), P(8), P(9), L(10), L(11), L(12), L(13), N(14),
     N(15), x[16], x[17] * *P(20), x[18] * *P(20), N(19))
CALL(entropy_forward, 7, P(0), C(1), P(2), P(3), L(4), L(5), N(6))
CALL(entropy_backward, 8, P(0), P(1), C(2), P(3), P(4), L(5), L(6), N(7))

static PyMethodDef methods[] = {
#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}
    ENTRY(norm_forward), ENTRY(norm_backward), ENTRY(heads_forward), ENTRY(heads_backward),
    ENTRY(attention_forward), ENTRY(attention_backward), ENTRY(activate), ENTRY(activate_backward),
    ENTRY(sort_rows), ENTRY(sparse_forward), ENTRY(sparse_backward), ENTRY(route_forward),
    ENTRY(route_backward), ENTRY(entropy_forward), ENTRY(entropy_backward), {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Fused CPU kernels; see csrc.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
