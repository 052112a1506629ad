# Cut neap.h between its marks into a C array, so that Lua declares the very text the library was
# compiled from and the two cannot differ.
#
#   cmake -D VERSION=… -D HEADER=neap.h -D SOURCE=cdef.c -P cdef.cmake
file(READ ${HEADER} text)
set(mark "/* ---- cut ---- */\n")
string(LENGTH "${mark}" mark_length)
string(FIND "${text}" "${mark}" first)
string(FIND "${text}" "${mark}" last REVERSE)
if(first EQUAL last)
  message(FATAL_ERROR "${HEADER}: two cut marks expected")
endif()
math(EXPR first "${first} + ${mark_length}")
math(EXPR length "${last} - ${first}")
string(SUBSTRING "${text}" ${first} ${length} text)

string(HEX "${text}" bytes)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x0a,)" "\\1\n\t" bytes "${bytes}")
file(WRITE ${SOURCE} "/* ${HEADER} between its cut marks */
#include \"neap.h\"

const char neap_version[] = \"${VERSION}\";

__attribute__((visibility(\"default\"))) extern const unsigned char neap_cdef[];
const unsigned char neap_cdef[] = {
	${bytes}0
};
")
