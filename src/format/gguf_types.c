/* gguf_types.c - the types of tensors: their numbers in the file, names and blocks. */
#include "base/nearest.h"
#include "format/gguf.h"

#include <strings.h>

static const mn_gguf_type_info types[] = {
    {MN_GGUF_F32, "F32", 1, 4, MN_F32},
    {MN_GGUF_F16, "F16", 1, 2, MN_F16},
    {MN_GGUF_BF16, "BF16", 1, 2, MN_BF16},
    {MN_GGUF_F64, "F64", 1, 8, MN_F64},
    {MN_GGUF_I8, "I8", 1, 1, MN_DTYPES},
    {MN_GGUF_I16, "I16", 1, 2, MN_DTYPES},
    {MN_GGUF_I32, "I32", 1, 4, MN_I32},
    {MN_GGUF_I64, "I64", 1, 8, MN_I64},
    {MN_GGUF_Q4_0, "Q4_0", 32, 18, MN_Q4_0},
    {MN_GGUF_Q4_1, "Q4_1", 32, 20, MN_Q4_1},
    {MN_GGUF_Q5_0, "Q5_0", 32, 22, MN_Q5_0},
    {MN_GGUF_Q5_1, "Q5_1", 32, 24, MN_Q5_1},
    {MN_GGUF_Q8_0, "Q8_0", 32, 34, MN_Q8_0},
    {MN_GGUF_Q2_K, "Q2_K", 256, 84, MN_Q2_K},
    {MN_GGUF_Q3_K, "Q3_K", 256, 110, MN_Q3_K},
    {MN_GGUF_Q4_K, "Q4_K", 256, 144, MN_Q4_K},
    {MN_GGUF_Q5_K, "Q5_K", 256, 176, MN_Q5_K},
    {MN_GGUF_Q6_K, "Q6_K", 256, 210, MN_Q6_K},
    {MN_GGUF_IQ4_NL, "IQ4_NL", 32, 18, MN_IQ4_NL},
    {MN_GGUF_IQ4_XS, "IQ4_XS", 256, 136, MN_IQ4_XS},
    {MN_GGUF_MXFP4, "MXFP4", 32, 17, MN_MXFP4},
};
enum { TYPES = sizeof types / sizeof *types };

const mn_gguf_type_info *mn_gguf_type_at(int i) { return i >= 0 && i < TYPES ? &types[i] : NULL; }

const mn_gguf_type_info *mn_gguf_type_find(uint32_t type) {
  for (int i = 0; i < TYPES; i++)
    if ((uint32_t)types[i].type == type) return &types[i];
  return NULL;
}

const mn_gguf_type_info *mn_gguf_type_of(mn_dtype dtype) {
  for (int i = 0; i < TYPES; i++)
    if (types[i].dtype == mn_dtype_plain(dtype) && dtype != MN_DTYPES) return &types[i];
  return NULL;
}

mn_status mn_gguf_type_named(const char *name, const mn_gguf_type_info **out) {
  const char *names[TYPES];
  char shown[MN_PRINTABLE];
  for (int i = 0; i < TYPES; i++) {
    names[i] = types[i].name;
    *out = &types[i];
    if (!strcasecmp(name, names[i])) return MN_OK;
  }
  *out = NULL;
  mn_text list = {0};
  for (int i = 0; i < TYPES; i++) mn_text_addf(&list, "%s%s", i ? ", " : "", names[i]);
  const char *near = mn_nearest(name, names, TYPES);
  mn_status status = mn_text_status(&list);
  if (status == MN_OK)
    status = mn_fail(MN_ERR_ARG, "'%s' is no type of tensors%s%s%s; known are %s", mn_printable(name, shown),
                     near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", list.data);
  mn_text_free(&list);
  return status;
}
