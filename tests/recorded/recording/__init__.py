"""What record_keras.py runs, one module a topic. Needs Keras; gnomon's tests never import it."""
