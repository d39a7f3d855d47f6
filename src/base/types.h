/* types.h - element types and shapes: the plain words that graphs, kernels and file formats share. */
#ifndef MN_TYPES_H
#define MN_TYPES_H

#include "base/base.h"

enum { MN_MAX_DIMS = 8 };

typedef enum mn_dtype { MN_F32, MN_F64, MN_BF16, MN_I32, MN_I64, MN_BOOL, MN_DTYPES } mn_dtype;

size_t mn_dtype_size(mn_dtype t);      /* bytes of one element */
const char *mn_dtype_name(mn_dtype t); /* "f32" ...            */
/* What sums of values of type t are computed in: f64 for f64, else f32. */
static inline mn_dtype mn_inner_type(mn_dtype t) { return t == MN_F64 ? MN_F64 : MN_F32; }
static inline bool mn_dtype_is_float(mn_dtype t) { return t == MN_F32 || t == MN_F64 || t == MN_BF16; }

typedef struct mn_shape {
  int ndim;
  int64_t dim[MN_MAX_DIMS];
} mn_shape;

#define MN_SHAPE(...) mn_shape_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
mn_shape mn_shape_of(int ndim, const int64_t *dim);
int64_t mn_shape_count(const mn_shape *s); /* product of the dimensions; 1 for a scalar */
bool mn_shape_equal(const mn_shape *a, const mn_shape *b);
const char *mn_shape_str(const mn_shape *s, char buf[96]); /* "[2, 3]" */

#endif
