/* Which header the library was built from; setup.py says its checksum. */
#include "kernels.h"

int header_checksum(void) { return (int)HEADER_CHECKSUM; }
