/* The checksum of the header that the library was built from, which setup.py defines. */
#include "kernels.h"

int header_checksum(void) { return (int)HEADER_CHECKSUM; }
