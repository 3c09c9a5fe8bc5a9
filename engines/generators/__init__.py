"""Generator architectures, one plain PyTorch module a file. Importing this imports no torch.

A generator is a ``torch.nn.Module`` that says about itself:

* ``stride`` (int): width and height must be multiples of it;
* ``architecture`` (str): as a card says it: ``ResNet generator, 64 channels, 9 blocks``;
* ``takes`` and ``gives`` (`engines.picture_format.PictureFormat`): its pictures; RGB, 0 to 1 where
  it does not say.
"""
