/* Failures on demand in a build with -Dfaults=true (core/base/faults.pxd), and what is left of them. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stddef.h>

/* From now on the `number`-th point fails, counted from 1; with `stays` all after it, too, until
 * faults_disarm.  0: none fails, they are counted only. */
void faults_arm(long number, int stays);
/* How many points were passed; none fails any more. */
long faults_disarm(void);
/* Whether one has failed since faults_arm. */
int faults_hit(void);
/* What is mapped, open and, with `blocks`, allocated, as text that is the same for the same things
 * wherever they are; its length. */
size_t faults_state(char *text, size_t size, int blocks);
/* Names the functions in which the last failure happened, and the blocks allocated since
 * faults_arm that are live: for whoever looks for the reason. */
void faults_explain(void);

#endif
