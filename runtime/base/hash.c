/* 128-bit fingerprints of sources, options and files. Not a defence against forgery, only against accidents. */
#include "base/base.h"

#include <xxhash.h>

void clattn__hash_hex(const void *bytes, size_t count, char hex[33]) {
    static const char digits[] = "0123456789abcdef";
    XXH128_canonical_t canonical; /* big-endian: the same digits on every host */
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, count));
    for (int i = 0; i < 16; i++) {
        hex[2 * i] = digits[canonical.digest[i] >> 4];
        hex[2 * i + 1] = digits[canonical.digest[i] & 15];
    }
    hex[32] = '\0';
}
