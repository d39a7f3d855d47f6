/* scope_numbers.h - numbers that are the same in every layer (the angles of rotary positions): they are worked out once for a build and
 * held once, whoever asks for them. */
#ifndef MN_SCOPE_NUMBERS_H
#define MN_SCOPE_NUMBERS_H

#include "nn/scope.h"

/* Writes mn_shape_count(shape) numbers, which depend on the shape and on what stands in `of`. */
typedef mn_status (*mn_numbers_rule)(const double *of, const mn_shape *shape, double *to);

/* A constant of type t, f32 or f64: by `rule` of of[n_of]. The same rule of the same numbers gives the same memory, so that the compiler sees
 * one constant where every layer asks for its own. A build for names alone works out none: zeros. A rule that fails is a fault of the graph. */
mn_tensor *mn_scope_numbers(mn_scope *s, mn_numbers_rule rule, int n_of, const double *of, mn_dtype t, mn_shape shape);

#endif
