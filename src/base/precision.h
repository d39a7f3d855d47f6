/* precision.h - what products may be computed in, by the words that settings, recipes and options say. */
#ifndef MN_PRECISION_H
#define MN_PRECISION_H

#include "base/types.h"

typedef enum mn_precision { MN_PRECISION_F32, MN_PRECISION_BF16, MN_PRECISION_F64, MN_PRECISIONS } mn_precision;

/* The words in the order of the enum, closed by NULL. */
extern const char *const mn_precisions[];         /* of models: f32 and bf16                                  */
extern const char *const mn_precisions_and_f64[]; /* where the reference backend, too, may be asked to compute */

mn_dtype mn_precision_type(int precision); /* of an mn_precision; its name is mn_dtype_name of that */

#endif
