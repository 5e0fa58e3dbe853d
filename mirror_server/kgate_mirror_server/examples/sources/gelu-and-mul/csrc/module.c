/* An empty Python module: importing it loads the library, and loading it registers the operators. */

#define Py_LIMITED_API 0x030A0000 /* Python 3.10 and every later version */
#include <Python.h>

#define NAMED(name) #name
#define TEXT(name) NAMED(name)
#define JOIN(left, right) left##right
#define INIT(name) JOIN(PyInit_, name)

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(OPS_NAMESPACE), NULL, 0, NULL};

PyMODINIT_FUNC INIT(OPS_NAMESPACE)(void) { return PyModule_Create(&definition); }
