/* SHA-256 (FIPS 180-4) of one message in memory, with the processor's own instructions where it has
 * them. Made for dictionary keys: the message is short, so no state is kept between calls and
 * nothing is allocated.
 *
 * All functions may be called from any thread, with or without the GIL. */

#ifndef NFSDICT_SHA256_H
#define NFSDICT_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define NFSDICT_SHA256_SIZE 32

/* Choose the fastest implementation that this processor can run. Called when the module is
 * initialised; again is harmless. Until then the portable one serves. */
void nfsdict_sha256_select(void);

/* Write the digest of the size bytes at data, which may be NULL if there are none. Cannot fail. */
void nfsdict_sha256(const uint8_t *data, size_t size, uint8_t digest[NFSDICT_SHA256_SIZE]);

/* The name of the implementation in use: "sha-ni" (x86-64), "armv8" (AArch64) or "portable". */
const char *nfsdict_sha256_implementation(void);

/* As nfsdict_sha256, by the implementation of that name, so that tests reach each of them.
 * Returns 1, or 0 with digest untouched if this build or this processor does not have it. */
int nfsdict_sha256_with(const char *name, const uint8_t *data, size_t size,
                        uint8_t digest[NFSDICT_SHA256_SIZE]);

#endif
