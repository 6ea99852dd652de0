"""The static code's built-in tables: constants of an engine, 432 bytes each, for networks and frames that bring none of
their own.

FEATURES : counted on calibration images of SqueezeNet 1.0, MobileNetV1 0.25, MobileNetV2, ResNet-18 and ResNet-20
(three images each; the tensors that wait, at int8, 7 and 6 bits as `benchmarks/activations.py` has them; every net and
number of bits with the same weight). On test images they came within 0.4 % of tables learned from the same net for
SqueezeNet, MobileNetV2 and ResNet-18 at 7 bits, within 3 % for the other two.
RESIDUALS : counted on what `predict` leaves of 50 photographs at 8 bits.

A row per level, 16 frequencies of 4096 each. Values learn from no test image.
"""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.codecs.rans import LEVELS, SYMBOLS, Tables


def _tables(text: str) -> Tables:
    return Tables(np.array(text.split(), np.int64).reshape(1, LEVELS, SYMBOLS))


FEATURES = _tables("""
    3531  114   68   47   68   46   60   38   44   24   24   12   10    5    3    2
    2421  818  278  159  158   81   79   36   33   13   10    4    3    1    1    1
    1689 1035  488  243  244  124  121   57   50   19   14    5    3    2    1    1
    1641  704  608  363  322  154  143   63   52   20   14    5    3    2    1    1
    1262  472  746  491  487  222  200   88   70   26   18    6    4    2    1    1
     991  314  419  762  740  325  275  114   87   32   22    7    4    2    1    1
     801  208  261  348 1054  574  455  176  129   44   28    9    5    2    1    1
     620  136  161  184  546 1008  830  288  199   64   38   11    6    2    2    1
     482   90  104  111  276  420 1451  594  365  109   63   17    8    3    2    1
     383   61   67   69  159  199  653 1318  802  218  118   29   13    4    2    1
     311   40   44   45   96  113  297  490 1721  566  275   62   26    6    3    1
     246   25   26   27   55   61  146  194  709 1636  746  151   57   11    4    2
     199   15   17   16   34   36   80   99  284  525 2119  466  164   30    9    3
     183    9   10   10   19   20   45   51  126  177  713 1995  601  105   26    6
     137    5    5    5   10   11   22   25   56   76  235  494 2461  440   96   18
     119    3    3    3    5    5   10   11   23   26   74  112  622 2523  488   69
      62    2    2    2    3    3    4    5   10   12   29   43  162  481 2993  283
     108    2    2    2    2    3    4    4   11    9   21   24   72  111  657 3064
""")
RESIDUALS = _tables("""
    3112  250  252  136  197   76   33   12    9    4    4    2    3    2    2    2
    1926  588  686  254  379  153   67   19   12    4    3    1    1    1    1    1
    1765  671  601  299  405  167  103   33   25   10    7    4    3    1    1    1
    1520  608  589  375  580  220  123   37   24    8    5    2    2    1    1    1
    1357  589  595  403  574  275  174   56   40   14    9    4    3    1    1    1
    1089  563  553  428  658  339  258   93   64   23   15    5    4    2    1    1
     819  492  489  403  671  427  413  168  122   43   28   10    6    2    2    1
     557  381  399  333  628  475  593  302  242   88   58   20   12    4    3    1
     359  282  295  261  513  452  689  442  433  173  121   40   23    7    4    2
     248  208  213  198  397  368  646  507  633  301  234   77   46   12    6    2
     181  159  162  155  306  286  534  476  721  436  402  149   91   24   11    3
     136  123  121  118  234  225  429  395  680  519  602  266  175   45   23    5
     109   99   97   97  192  180  349  329  591  499  704  390  314   94   43    9
      91   81   80   84  156  151  290  268  490  444  710  470  492  181   90   18
      89   73   74   74  134  128  234  228  418  373  644  493  621  295  182   36
     104   70   71   60  129  109  221  192  349  309  548  452  678  392  331   81
     115   60   69   73  129  119  212  178  328  288  503  442  586  421  425  148
     561  153  115   85  156  141  249  178  234  204  344  318  528  313  375  142
""")
