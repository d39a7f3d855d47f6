/* element.h - one element of any type as a double: for whoever looks at host memory whose type is a value, one by one and not fast. */
#ifndef MN_ELEMENT_H
#define MN_ELEMENT_H

#include "base/bf16.h"
#include "base/types.h"

static inline double mn_element_load(const void *p, mn_dtype t, int64_t i) {
  switch (t) {
  case MN_F32:
    return ((const float *)p)[i];
  case MN_F64:
    return ((const double *)p)[i];
  case MN_BF16:
    return mn_bf16_to_float(((const uint16_t *)p)[i]);
  case MN_I32:
    return ((const int32_t *)p)[i];
  case MN_I64:
    return (double)((const int64_t *)p)[i];
  default:
    return ((const uint8_t *)p)[i];
  }
}

static inline void mn_element_store(void *p, mn_dtype t, int64_t i, double x) {
  switch (t) {
  case MN_F32:
    ((float *)p)[i] = (float)x;
    break;
  case MN_F64:
    ((double *)p)[i] = x;
    break;
  case MN_BF16:
    ((uint16_t *)p)[i] = mn_float_to_bf16((float)x);
    break;
  case MN_I32:
    ((int32_t *)p)[i] = (int32_t)x;
    break;
  case MN_I64:
    ((int64_t *)p)[i] = (int64_t)x;
    break;
  default:
    ((uint8_t *)p)[i] = x != 0;
    break;
  }
}

#endif
