/* sampling.c - what may be said of draws, see sampler.h: apart from them, so that who reads requests needs no kernels. */
#include "run/sampler.h"

#define S mn_sampling
const mn_field mn_sampling_fields[] = {
    MN_FIELD_FLOAT(S, temperature, 0.8, 0, 100, "spread of the draw; 0: always the likeliest token"),
    MN_FIELD_INT(S, top_k, 0, 0, 1 << 26, "draw from the k likeliest tokens; 0: from all"),
    MN_FIELD_FLOAT(S, top_p, 1, 0, 1, "draw from the smallest set of tokens with this probability; 1: from all"),
    MN_FIELD_FLOAT(S, min_p, 0, 0, 1, "leave out tokens below this fraction of the best one's probability"),
    MN_FIELD_FLOAT(S, repetition_penalty, 1, 0.01, 100, "makes recent tokens less likely; 1: off"),
    MN_FIELD_INT(S, repetition_window, 64, 0, 65536, "how many recent tokens the penalty looks at"),
    MN_FIELD_INT(S, seed, 1, 0, INT64_MAX, "of the draws"),
    MN_FIELD_END};
#undef S
