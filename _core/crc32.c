/* Folding by carry-less multiplication: V. Gopal et al., "Fast CRC Computation for Generic
 * Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), in the bit order of section "Bit-reflected
 * CRC". A block is multiplied by x to the distance that it is moved, modulo the polynomial, and added
 * to what lies there: the remainder of the whole stays the same. Memory is slower than this. */

#include "crc32.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define CLMUL __attribute__((target("sse4.1,pclmul")))

/* So far ahead memory is asked for; the processor's own guess leaves a third of its speed unused. */
enum { AHEAD = 4096 };

/* Move x by the distance of these two factors, one for each half of it, and add what lies there. */
CLMUL static inline __m128i fold(__m128i x, __m128i factors, __m128i there)
{
    const __m128i low = _mm_clmulepi64_si128(x, factors, 0x00);
    const __m128i high = _mm_clmulepi64_si128(x, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

CLMUL static inline __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

CLMUL void nfsdict_crc32_fold(const uint8_t *data, size_t size, uint32_t checksum,
                              uint8_t folded[NFSDICT_CRC32_FOLDED])
{
    /* x^(512+32), x^(512-32) and x^(128+32), x^(128-32) modulo the polynomial, bits reversed. */
    const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i a = load(data), b = load(data + 16), c = load(data + 32), d = load(data + 48);

    a = _mm_xor_si128(a, _mm_cvtsi32_si128((int)~checksum));
    for (size_t at = NFSDICT_CRC32_BLOCK; at < size; at += NFSDICT_CRC32_BLOCK) {
        if (at + AHEAD < size)
            _mm_prefetch((const char *)(data + at + AHEAD), _MM_HINT_T0);
        a = fold(a, by_64, load(data + at));
        b = fold(b, by_64, load(data + at + 16));
        c = fold(c, by_64, load(data + at + 32));
        d = fold(d, by_64, load(data + at + 48));
    }
    d = fold(fold(fold(a, by_16, b), by_16, c), by_16, d);
    _mm_storeu_si128((__m128i *)(void *)folded, d);
}

/* CPUID leaf 1: ECX bit 1 is PCLMULQDQ, bit 19 SSE4.1. */
int nfsdict_crc32_can_fold(void)
{
    const unsigned needed = 1u << 1 | 1u << 19;
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & needed) == needed;
}

#else

int nfsdict_crc32_can_fold(void)
{
    return 0;
}

void nfsdict_crc32_fold(const uint8_t *data, size_t size, uint32_t checksum,
                        uint8_t folded[NFSDICT_CRC32_FOLDED])
{
    (void)data, (void)size, (void)checksum, (void)folded; /* never called */
}

#endif
