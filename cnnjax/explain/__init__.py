"""Pictures of data, training and nets: every function returns a matplotlib Figure and neither shows nor saves it.

pixels     the numbers of a picture, written into it
pictures   a labelled grid of pictures
filters    the kernels of a convolution
curve      a learning curve
confusion  a confusion matrix
"""

from cnnjax.explain.confusion import confusion_matrix, plot_confusion
from cnnjax.explain.curve import plot_curve
from cnnjax.explain.filters import plot_filters
from cnnjax.explain.pictures import plot_pictures
from cnnjax.explain.pixels import plot_pixels

__all__ = ["plot_pixels", "plot_pictures", "plot_filters", "plot_curve", "confusion_matrix", "plot_confusion"]
