/* What the program unwinding.cc and its library know of each other. */
#include <stdexcept>
#include <string>

typedef void (*Callback)();
typedef void (*Note)(const char *word);

struct Own : std::logic_error {
  explicit Own(int number) : std::logic_error("own"), value(number) {}
  int value;
};

enum { KINDS = 4 }; /* of exceptions that `raise` throws */
