/* CRC-32 (ISO 3309, as zlib computes it) of large contents, with the processor's carry-less
 * multiplication where it has one. Only the long way is gone here: what is left is 16 bytes, which
 * the caller gives to zlib. All functions may be called from any thread, without the GIL. */

#ifndef NFSDICT_CRC32_H
#define NFSDICT_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The bytes that are folded at a time, and the size of what they are folded to. */
enum { NFSDICT_CRC32_BLOCK = 64, NFSDICT_CRC32_FOLDED = 16 };

/* Whether this build and this processor can fold. Asked once, when the module is initialised. */
int nfsdict_crc32_can_fold(void);

/* Fold size bytes, a multiple of NFSDICT_CRC32_BLOCK and not 0, after data with this checksum, to
 * 16 bytes. From a register of zeros (for zlib's crc32: a checksum of 0xffffffff) these lead to the
 * same register as the bytes would from that checksum. */
void nfsdict_crc32_fold(const uint8_t *data, size_t size, uint32_t checksum,
                        uint8_t folded[NFSDICT_CRC32_FOLDED]);

#endif
