# PyQt, with the platform plugin `offscreen` and plugins for pictures.
# packages: python3-pyqt5 python3
export QT_QPA_PLATFORM=offscreen
/usr/bin/python3 - <<'END'
from PyQt5.QtCore import QT_VERSION_STR, QObject, QTimer, pyqtSignal
from PyQt5.QtGui import QGuiApplication, QImage, QImageReader, QColor, QPainter
from PyQt5.QtWidgets import QApplication, QLabel, QPushButton
application = QApplication([])
print(QT_VERSION_STR, application.platformName(), sorted(bytes(f) for f in QImageReader.supportedImageFormats()))
image = QImage(32, 32, QImage.Format_RGB32); image.fill(QColor("red")); image.save("red.png")
print(QImage("red.png").pixelColor(3, 3).name())
button = QPushButton("press"); button.clicked.connect(lambda: print("pressed")); button.click()
class Sender(QObject):
    signal = pyqtSignal(int)
sender = Sender(); sender.signal.connect(lambda n: print("signal", n)); sender.signal.emit(5)
label = QLabel("text"); label.resize(40, 20); label.show(); print(label.grab().width())
QTimer.singleShot(10, lambda: application.exit(3))
print(application.exec_())
END
echo "$?"
