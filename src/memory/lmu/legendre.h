/* legendre.h - the Legendre state space: a linear system whose d numbers are the coordinates of the last theta inputs in shifted Legendre
 * polynomials (Voelker, Kajic & Eliasmith 2019). Fixed, not learned. */
#ifndef MN_LEGENDRE_H
#define MN_LEGENDRE_H

#include "nn/scope.h"

/* One step of m' = A m + B u with u held for the step (zero-order hold), of order d and window theta > 0, in f64:
 *     A_ij = (2i+1)/theta (-1 if i < j else (-1)^(i-j+1))     B_i = (2i+1)/theta (-1)^i     i, j from 0
 *     exp [A B; 0 0] = [a b; 0 1]
 * a [d,d] by rows, b [d], the caller's. MN_ERR_MEMORY, MN_ERR_CANCELLED. */
mn_status mn_legendre_step(int64_t d, double theta, double *a, double *b);

/* m_1 .. m_T [B,T,M,d] of inputs u [B,T,M], from m_0 [B,M,d]: M systems of order d and window theta side by side. u and m_0 are f32 or
 * f64. In chunks of L steps: within one all steps are a single product, and a loop over chunks hands on the last. */
mn_tensor *mn_legendre_memory(mn_scope *s, mn_tensor *u, mn_tensor *m0, double theta);

/* How the system runs through L steps at once, as one matrix of L + d rows and L columns of d: with u_1 .. u_L, m_0 as a row
 *     [m_1 .. m_L] = [u_1 .. u_L, m_0] G          rows j of G: a^(t-j) b at step t >= j;  below: (a^t)^T
 * A constant [L + d, L d] of type t (f32 or f64), one for all layers. Computed once in f64 and kept for as long as the program runs. */
mn_tensor *mn_legendre_steps(mn_scope *s, mn_dtype t, int64_t d, double theta, int64_t L);

#endif
