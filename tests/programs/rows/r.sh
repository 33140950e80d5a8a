# Packages with native code, and linear algebra.
# packages: r-base-core
R --vanilla --no-echo 2>&1 <<'END'
print(solve(matrix(c(2, 1, 1, 3), 2), c(1, 2)))
print(svd(matrix(1:6, 2))$d)
set.seed(1); print(rnorm(3))
for (name in c("splines", "grid", "tools", "stats4", "parallel", "tcltk", "compiler")) print(suppressWarnings(require(name, character.only = TRUE, quietly = TRUE)))
print(nchar(toupper(iconv("abc", "UTF-8", "UTF-16LE", toRaw = TRUE)[[1]])))
print(coef(lm(mpg ~ wt, mtcars)))
print(tryCatch(dyn.load("/nonesuch.so"), error = conditionMessage))
handle <- dyn.load("/usr/lib/R/library/splines/libs/splines.so"); print(handle[["name"]])
print(is.loaded("spline_value"))
png <- tryCatch({ png("plot.png", type = "cairo"); plot(1:3); dev.off(); file.exists("plot.png") }, error = conditionMessage); print(png)
print(regmatches("a1b22", gregexpr("[0-9]+", "a1b22", perl = TRUE)))
quit(status = 3)
END
echo "$?"
