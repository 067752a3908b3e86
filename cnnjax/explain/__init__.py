"""Pictures of data, training and nets: every function returns a matplotlib Figure and neither shows nor saves it.

pixels     the numbers of a picture, written into it
pictures   a labelled grid of pictures
filters    the kernels of a convolution
curve      a learning curve
confusion  a confusion matrix
sliding    animations: a filter or a pool slides over a table of numbers, and what it computes there
animation  what they return: for a notebook, or for a GIF file
sizes      the output size of a layer, worked with its numbers
coverage   which input cells the windows cover, drop and pad
matrix     a convolution as the sparse, weight-tied matrix that it is
oriented   hand-made oriented filters, lines and gratings, and which filter answers to what
tuning     the same, drawn
slices     slices of a volume, with what is labelled in it
spectra    what the filters of a net for sounds answer to
tiling     overlapping receptive fields that tile a picture, layer by layer
trace      the layers of a model, in the order in which they run
summary    a table of them: sizes, parameters, work, memory, receptive fields
receptive_field  which pixels a unit sees, in theory and in effect
activations  what every layer computes, and the kernels it does it with
saliency   the gradient of a class's score
integrated_gradients  the score, divided among the pixels
occlusion  how much of the score is lost while a part is covered
grad_cam   where the maps of a layer speak for a class
guided_backprop  the gradient along the paths that speak for a class alone
attribution  these heat maps, drawn side by side
deconvnet  one unit projected back to the pixels that it answers to
patches    the parts of pictures that excite a channel most
features   the picture that a channel would like to see
explorer   a page in which one walks through a net: every map, and how each number on it is made
"""

from cnnjax.explain.activations import activations, kernels, plot_activations
from cnnjax.explain.animation import Animation
from cnnjax.explain.attribution import plot_attribution
from cnnjax.explain.confusion import confusion_matrix, plot_confusion
from cnnjax.explain.coverage import plot_coverage
from cnnjax.explain.curve import plot_curve
from cnnjax.explain.deconvnet import deconvnet
from cnnjax.explain.explorer import Explorer, explorer
from cnnjax.explain.features import visualize_feature
from cnnjax.explain.filters import plot_filters
from cnnjax.explain.grad_cam import grad_cam
from cnnjax.explain.guided_backprop import guided_backprop
from cnnjax.explain.integrated_gradients import integrated_gradients
from cnnjax.explain.matrix import conv_matrix, plot_conv_matrix
from cnnjax.explain.occlusion import occlusion
from cnnjax.explain.oriented import grating_image, line_image, orientation_tuning, oriented_filters
from cnnjax.explain.patches import TopPatches, plot_patches, top_patches
from cnnjax.explain.pictures import plot_pictures
from cnnjax.explain.pixels import plot_pixels
from cnnjax.explain.receptive_field import (
    ReceptiveField,
    effective_receptive_field,
    plot_receptive_field,
    receptive_field,
    receptive_window,
)
from cnnjax.explain.saliency import saliency
from cnnjax.explain.sizes import size_formula
from cnnjax.explain.slices import plot_slices
from cnnjax.explain.sliding import animate_conv1d, animate_conv2d, animate_conv3d, animate_pool2d
from cnnjax.explain.spectra import plot_spectra
from cnnjax.explain.summary import Row, Summary, summary
from cnnjax.explain.tiling import plot_tiling
from cnnjax.explain.trace import Layer, Trace, trace
from cnnjax.explain.tuning import plot_tuning

__all__ = [
    "plot_pixels",
    "plot_pictures",
    "plot_filters",
    "plot_curve",
    "confusion_matrix",
    "plot_confusion",
    "animate_conv1d",
    "animate_conv2d",
    "animate_conv3d",
    "animate_pool2d",
    "Animation",
    "size_formula",
    "plot_coverage",
    "conv_matrix",
    "plot_conv_matrix",
    "oriented_filters",
    "line_image",
    "grating_image",
    "orientation_tuning",
    "plot_slices",
    "plot_spectra",
    "plot_tuning",
    "plot_tiling",
    "trace",
    "Trace",
    "Layer",
    "summary",
    "Summary",
    "Row",
    "receptive_field",
    "ReceptiveField",
    "receptive_window",
    "effective_receptive_field",
    "plot_receptive_field",
    "activations",
    "kernels",
    "plot_activations",
    "saliency",
    "integrated_gradients",
    "occlusion",
    "grad_cam",
    "guided_backprop",
    "plot_attribution",
    "deconvnet",
    "top_patches",
    "TopPatches",
    "plot_patches",
    "visualize_feature",
    "explorer",
    "Explorer",
]
