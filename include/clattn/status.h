/* Status codes. One list makes the enum, the names and the texts, so they cannot drift apart. */
#ifndef CLATTN_STATUS_H
#define CLATTN_STATUS_H

#if defined(_WIN32)
#define CLATTN_API
#elif defined(__GNUC__)
#define CLATTN_API __attribute__((visibility("default")))
#else
#define CLATTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Values are part of the ABI and never change. */
#define CLATTN_STATUS_MAP(X)                                                                                           \
    X(OK, 0, "success")                                                                                                \
    X(INVALID_ARGUMENT, -1, "an argument is missing or has a value outside its range")                                 \
    X(INVALID_SHAPE, -2, "an extent is negative, too large or contradicts the description")                            \
    X(UNSUPPORTED, -3, "every implementation refused")                                                                 \
    X(NO_DEVICE, -4, "no OpenCL device matches")                                                                       \
    X(OUT_OF_MEMORY, -5, "the host or the device has too little memory")                                               \
    X(DEVICE_FAILED, -6, "an OpenCL call failed")                                                                      \
    X(BUILD_FAILED, -7, "the device's compiler rejected a kernel")                                                     \
    X(MEMORY_LIMIT, -8, "the memory limit is smaller than the least that works")                                       \
    X(WRONG_RESULT, -9, "a device's result differs from the scalar reference")                                         \
    X(FILE_FAILED, -10, "a file could not be read or written")

typedef enum clattn_status {
#define CLATTN_STATUS_ENUM(name, value, text) CLATTN_##name = value,
    CLATTN_STATUS_MAP(CLATTN_STATUS_ENUM)
#undef CLATTN_STATUS_ENUM
} clattn_status;

/* "CLATTN_INVALID_SHAPE" and its one-line meaning; both are constants and never NULL, "?" for an unknown value. */
CLATTN_API const char *clattn_status_name(clattn_status status);
CLATTN_API const char *clattn_status_text(clattn_status status);

/* The whole story of the calling thread's last failed clattn call: field, value and rule, or the OpenCL call, its code
 * by name, device, driver, an excerpt of the build log and a hint. Thread-local; valid until this thread's next failing
 * clattn call; "" when nothing has failed. A successful call leaves it alone. */
CLATTN_API const char *clattn_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
