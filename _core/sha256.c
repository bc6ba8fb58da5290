/* SHA-256 as NIST FIPS 180-4 specifies it; its sections and symbols are cited below.
 *
 * Padding is written once. The implementations differ in the compression of 64-byte blocks only:
 *
 *   sha-ni    Intel SHA extensions: Intel 64 and IA-32 Architectures Software Developer's Manual,
 *             volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2
 *   armv8     Arm cryptographic extension: Arm Architecture Reference Manual for A-profile,
 *             SHA256H, SHA256H2, SHA256SU0, SHA256SU1; intrinsics of the Arm C Language Extensions
 *   portable  C99, any byte order, no unaligned access */

#include "sha256.h"

#include <string.h>

enum { BLOCK = 64, LENGTH = 8 }; /* bytes of a block, and of the length that ends the last one */

typedef void compress_function(uint32_t state[8], const uint8_t *blocks, size_t count);

/* 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* 5.3.3: likewise of the square roots of the first 8 primes. */
static const uint32_t INITIAL[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* ---- portable ---- */

/* Words are stored whole, since GCC 12 makes slow vector code of stores of their single bytes. */
static uint32_t big_endian(uint32_t x)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return x;
#else
    return __builtin_bswap32(x);
#endif
}

static uint32_t load_be32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return big_endian(x);
}

static void store_be32(uint8_t *p, uint32_t x)
{
    x = big_endian(x);
    memcpy(p, &x, sizeof x);
}

/* 4.1.2 */
#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define CH(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJ(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define BIG_SIGMA0(x) (ROTR(x, 2) ^ ROTR(x, 13) ^ ROTR(x, 22))
#define BIG_SIGMA1(x) (ROTR(x, 6) ^ ROTR(x, 11) ^ ROTR(x, 25))
#define SMALL_SIGMA0(x) (ROTR(x, 7) ^ ROTR(x, 18) ^ (x) >> 3)
#define SMALL_SIGMA1(x) (ROTR(x, 17) ^ ROTR(x, 19) ^ (x) >> 10)

/* 6.2.2, step 3. The working variables stay where they are and change their names from round to
 * round: after eight rounds each has its own again. */
#define ROUND(a, b, c, d, e, f, g, h, t)                \
    do {                                                \
        h += BIG_SIGMA1(e) + CH(e, f, g) + K[t] + w[t]; \
        d += h;                                         \
        h += BIG_SIGMA0(a) + MAJ(a, b, c);              \
    } while (0)

static void compress_portable(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    uint32_t w[64];

    for (; count > 0; count--, blocks += BLOCK) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

        for (int t = 0; t < 16; t++)
            w[t] = load_be32(blocks + 4 * t);
        for (int t = 16; t < 64; t++)
            w[t] = SMALL_SIGMA1(w[t - 2]) + w[t - 7] + SMALL_SIGMA0(w[t - 15]) + w[t - 16];

        for (int t = 0; t < 64; t += 8) {
            ROUND(a, b, c, d, e, f, g, h, t);
            ROUND(h, a, b, c, d, e, f, g, t + 1);
            ROUND(g, h, a, b, c, d, e, f, t + 2);
            ROUND(f, g, h, a, b, c, d, e, t + 3);
            ROUND(e, f, g, h, a, b, c, d, t + 4);
            ROUND(d, e, f, g, h, a, b, c, t + 5);
            ROUND(c, d, e, f, g, h, a, b, t + 6);
            ROUND(b, c, d, e, f, g, h, a, t + 7);
        }

        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

static int portable_available(void)
{
    return 1;
}

/* ---- x86-64 ---- */

#if defined(__x86_64__)
#define HAVE_SHA_NI

#include <cpuid.h>
#include <immintrin.h>

#define SHA_NI __attribute__((target("sha,ssse3,sse4.1")))

/* Four words of the message schedule from the sixteen before them, of which a is the oldest four
 * (6.2.2, step 1). SHA256MSG1 adds SMALL_SIGMA0, ALIGNR brings the words seven back, SHA256MSG2
 * adds SMALL_SIGMA1. */
SHA_NI static inline __m128i schedule_ni(__m128i a, __m128i b, __m128i c, __m128i d)
{
    const __m128i seven_back = _mm_alignr_epi8(d, c, 4);
    return _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(a, b), seven_back), d);
}

/* Four rounds. SHA256RNDS2 does two and returns the new A B E F; the old ones are the new C D G H,
 * so the two registers change places twice. */
SHA_NI static inline void rounds_ni(__m128i *abef, __m128i *cdgh, __m128i w, const uint32_t *k)
{
    const __m128i wk = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(const void *)k));
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, wk);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_unpackhi_epi64(wk, wk));
}

SHA_NI static inline __m128i load_ni(const uint8_t *p)
{
    const __m128i swap_bytes = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), swap_bytes);
}

SHA_NI static void compress_ni(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    enum { SWAP_PAIRS = 0xb1 }; /* the lanes 1 0 3 2 */
    __m128i *const words = (__m128i *)(void *)state;
    const __m128i abcd = _mm_loadu_si128(words), efgh = _mm_loadu_si128(words + 1);

    /* The instructions want A and C in the highest lane; memory has A and E in the lowest. */
    __m128i abef = _mm_shuffle_epi32(_mm_unpacklo_epi64(efgh, abcd), SWAP_PAIRS);
    __m128i cdgh = _mm_shuffle_epi32(_mm_unpackhi_epi64(efgh, abcd), SWAP_PAIRS);

    for (; count > 0; count--, blocks += BLOCK) {
        const __m128i old_abef = abef, old_cdgh = cdgh;
        __m128i w0 = load_ni(blocks), w1 = load_ni(blocks + 16);
        __m128i w2 = load_ni(blocks + 32), w3 = load_ni(blocks + 48);

        for (int t = 0;; t += 16) {
            rounds_ni(&abef, &cdgh, w0, K + t);
            rounds_ni(&abef, &cdgh, w1, K + t + 4);
            rounds_ni(&abef, &cdgh, w2, K + t + 8);
            rounds_ni(&abef, &cdgh, w3, K + t + 12);
            if (t == 48)
                break;
            w0 = schedule_ni(w0, w1, w2, w3);
            w1 = schedule_ni(w1, w2, w3, w0);
            w2 = schedule_ni(w2, w3, w0, w1);
            w3 = schedule_ni(w3, w0, w1, w2);
        }
        abef = _mm_add_epi32(abef, old_abef);
        cdgh = _mm_add_epi32(cdgh, old_cdgh);
    }

    abef = _mm_shuffle_epi32(abef, SWAP_PAIRS);
    cdgh = _mm_shuffle_epi32(cdgh, SWAP_PAIRS);
    _mm_storeu_si128(words, _mm_unpackhi_epi64(abef, cdgh));
    _mm_storeu_si128(words + 1, _mm_unpacklo_epi64(abef, cdgh));
}

/* CPUID leaf 1: ECX bit 9 is SSSE3, bit 19 SSE4.1; leaf 7, subleaf 0: EBX bit 29 is SHA. Asked of
 * CPUID because __builtin_cpu_supports does not know "sha" in the compilers of today's wheels. */
static int ni_available(void)
{
    const unsigned sse = 1u << 9 | 1u << 19, sha = 1u << 29;
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & sse) != sse)
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & sha) != 0;
}
#endif

/* ---- AArch64 ---- */

/* With the extension in the compiler's baseline (every Apple arm64) there is nothing to ask of the
 * processor. Elsewhere Linux tells; Clang before 16 hides the intrinsics from code that only asks
 * for them by attribute, and Armv8 in big-endian mode is too rare to be worth its lane order. */
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
#if defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
#define HAVE_ARMV8
#define ARMV8
#elif defined(__linux__) && (!defined(__clang__) || __clang_major__ >= 16)
#define HAVE_ARMV8
#define ARMV8 __attribute__((target("+crypto")))
#define ARMV8_ASK_LINUX
#endif
#endif

#ifdef HAVE_ARMV8

#include <arm_neon.h>

/* As schedule_ni: SHA256SU0 adds SMALL_SIGMA0, SHA256SU1 the words seven back and SMALL_SIGMA1. */
ARMV8 static inline uint32x4_t schedule_armv8(uint32x4_t a, uint32x4_t b, uint32x4_t c,
                                              uint32x4_t d)
{
    return vsha256su1q_u32(vsha256su0q_u32(a, b), c, d);
}

/* Four rounds. SHA256H returns the new A B C D, SHA256H2 the new E F G H, both from the old. */
ARMV8 static inline void rounds_armv8(uint32x4_t *abcd, uint32x4_t *efgh, uint32x4_t w,
                                      const uint32_t *k)
{
    const uint32x4_t wk = vaddq_u32(w, vld1q_u32(k)), old_abcd = *abcd;
    *abcd = vsha256hq_u32(*abcd, *efgh, wk);
    *efgh = vsha256h2q_u32(*efgh, old_abcd, wk);
}

ARMV8 static inline uint32x4_t load_armv8(const uint8_t *p)
{
    return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p)));
}

ARMV8 static void compress_armv8(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);

    for (; count > 0; count--, blocks += BLOCK) {
        const uint32x4_t old_abcd = abcd, old_efgh = efgh;
        uint32x4_t w0 = load_armv8(blocks), w1 = load_armv8(blocks + 16);
        uint32x4_t w2 = load_armv8(blocks + 32), w3 = load_armv8(blocks + 48);

        for (int t = 0;; t += 16) {
            rounds_armv8(&abcd, &efgh, w0, K + t);
            rounds_armv8(&abcd, &efgh, w1, K + t + 4);
            rounds_armv8(&abcd, &efgh, w2, K + t + 8);
            rounds_armv8(&abcd, &efgh, w3, K + t + 12);
            if (t == 48)
                break;
            w0 = schedule_armv8(w0, w1, w2, w3);
            w1 = schedule_armv8(w1, w2, w3, w0);
            w2 = schedule_armv8(w2, w3, w0, w1);
            w3 = schedule_armv8(w3, w0, w1, w2);
        }
        abcd = vaddq_u32(abcd, old_abcd);
        efgh = vaddq_u32(efgh, old_efgh);
    }

    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

#ifdef ARMV8_ASK_LINUX
#include <sys/auxv.h>
#ifndef HWCAP_SHA2
#define HWCAP_SHA2 (1 << 6) /* the kernel's arch/arm64/include/uapi/asm/hwcap.h */
#endif

static int armv8_available(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0;
}
#else
static int armv8_available(void)
{
    return 1;
}
#endif
#endif

/* ---- choice ---- */

struct implementation {
    const char *name;
    int (*available)(void);
    compress_function *compress;
};

/* Best first; the last is always available. */
static const struct implementation IMPLEMENTATIONS[] = {
#ifdef HAVE_SHA_NI
    {"sha-ni", ni_available, compress_ni},
#endif
#ifdef HAVE_ARMV8
    {"armv8", armv8_available, compress_armv8},
#endif
    {"portable", portable_available, compress_portable},
};

enum { COUNT = sizeof IMPLEMENTATIONS / sizeof IMPLEMENTATIONS[0] };

/* Chosen once and not for each message: under a hypervisor every CPUID costs microseconds.
 * Atomic because a second interpreter may initialise the module while the first one hashes. What it
 * points to is constant, so that no order beyond its own is needed. */
static const struct implementation *chosen = &IMPLEMENTATIONS[COUNT - 1];

void nfsdict_sha256_select(void)
{
    const struct implementation *best = IMPLEMENTATIONS;

    while (!best->available())
        best++;
    __atomic_store_n(&chosen, best, __ATOMIC_RELAXED);
}

static const struct implementation *in_use(void)
{
    return __atomic_load_n(&chosen, __ATOMIC_RELAXED);
}

/* ---- message ---- */

/* 5.1.1 and 6.2. Whole blocks are read where they are; what is left of the message, a one bit,
 * zeros and the length in bits are put together in a last block, or in two if one is too small. */
static void hash(compress_function *compress, const uint8_t *data, size_t size, uint8_t *digest)
{
    const size_t whole = size / BLOCK, rest = size % BLOCK;
    const size_t last = rest < BLOCK - LENGTH ? 1 : 2;
    const uint64_t bits = (uint64_t)size * 8;
    uint8_t tail[2 * BLOCK] = {0};
    uint32_t state[8];

    memcpy(state, INITIAL, sizeof state);
    if (whole > 0)
        compress(state, data, whole);

    if (rest > 0)
        memcpy(tail, data + whole * BLOCK, rest);
    tail[rest] = 0x80;
    store_be32(tail + last * BLOCK - LENGTH, (uint32_t)(bits >> 32));
    store_be32(tail + last * BLOCK - 4, (uint32_t)bits);
    compress(state, tail, last);

    for (int i = 0; i < 8; i++)
        store_be32(digest + 4 * i, state[i]);
}

void nfsdict_sha256(const uint8_t *data, size_t size, uint8_t digest[NFSDICT_SHA256_SIZE])
{
    hash(in_use()->compress, data, size, digest);
}

const char *nfsdict_sha256_implementation(void)
{
    return in_use()->name;
}

int nfsdict_sha256_with(const char *name, const uint8_t *data, size_t size,
                        uint8_t digest[NFSDICT_SHA256_SIZE])
{
    for (size_t i = 0; i < COUNT; i++) {
        const struct implementation *const candidate = &IMPLEMENTATIONS[i];
        if (strcmp(candidate->name, name) == 0 && candidate->available()) {
            hash(candidate->compress, data, size, digest);
            return 1;
        }
    }
    return 0;
}
