/* CLBlast's kernels with small tiles, as clattn_context_options.clblast_parameters takes them: they compile sooner than
 * its own, and suites that ask for the same share what the driver keeps. */
#ifndef CLATTN_TEST_CLBLAST_SMALL_H
#define CLATTN_TEST_CLBLAST_SMALL_H

#define XGEMM_BUT_WIDTH                                                                                                \
    "Xgemm GEMMK=0 KREG=1 KWG=16 KWI=2 MDIMA=4 MDIMC=4 NDIMB=4 NDIMC=4 NWG=16 SA=0 SB=0 STRM=0 STRN=0 VWN=2"
#define XGEMM XGEMM_BUT_WIDTH " MWG=16 VWM=2"
#define DIRECT "XgemmDirect KWID=2 MDIMAD=4 MDIMCD=4 NDIMBD=4 NDIMCD=4 PADA=1 PADB=1 VWMD=1 VWND=1 WGD=8"
#define CLBLAST_SMALL XGEMM ";" DIRECT ";GemmRoutine XGEMM_MIN_INDIRECT_SIZE=0" /* the large kernel for every size */

#endif
