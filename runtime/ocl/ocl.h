/* The only private include of OpenCL's headers; 1.2 is all that clattn needs. */
#ifndef CLATTN_OCL_H
#define CLATTN_OCL_H

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include "base/base.h"

/* "CL_OUT_OF_RESOURCES" for -5; "unknown OpenCL error" for values not in the list. */
const char *clattn__cl_error_name(cl_int code);

/* Records "<call> failed with <name> (<code>) on <device>: <hint>" and returns the status that fits the code:
 * OUT_OF_MEMORY for allocation codes, else DEVICE_FAILED. device may be NULL. */
clattn_status clattn__cl_fail(cl_int code, const char *call, const char *device);

#endif
