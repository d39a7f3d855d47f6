/* precision.c - see precision.h. */
#include "base/precision.h"

#define OF_MODELS [MN_PRECISION_F32] = "f32", [MN_PRECISION_BF16] = "bf16"
const char *const mn_precisions[] = {OF_MODELS, NULL};
const char *const mn_precisions_and_f64[] = {OF_MODELS, [MN_PRECISION_F64] = "f64", NULL};

mn_dtype mn_precision_type(int precision) {
  static const mn_dtype types[MN_PRECISIONS] = {[MN_PRECISION_F32] = MN_F32, [MN_PRECISION_BF16] = MN_BF16, [MN_PRECISION_F64] = MN_F64};
  return types[precision];
}
